"""Writes the tables of the documentation that follow from the code: `python -m dev.tables [--check]`.

A table stands between `<!-- generated: NAME -->` and `<!-- end -->`. Of some tables only a column is generated; the
rest of their rows is written by hand.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml
from prometheus_client.metrics_core import Metric

from dev.row_shapes import cells
from dev.uv import ROOT
from hone.api.descriptions import EPOCHS_OF_FEW, EPOCHS_OF_MANY, number
from hone.contract.methods import ADAPTER_METHODS, METHODS, WEIGHT_METHODS, MethodType
from hone.contract.objectives import OBJECTIVES, Objective, ObjectiveFacts, objectives_of
from hone.contract.rewards import REWARDS
from hone.contract.rules.vllm import ARGUMENTS, CHOICES
from hone.contract.settings import DataFormat
from hone.runtime.metrics import Metrics
from hone_trainer.launcher.metrics import RankCollector
from hone_trainer.planning.rollouts import LONGEST
from hone_trainer.protocol.status import StatusDir

PAGES = (
    "README.md",
    "docs/objectives.md",
    "docs/data.md",
    "docs/serving.md",
    "docs/coming-from.md",
    "docs/monitoring.md",
)
_BLOCK = re.compile(r"(<!-- generated: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
NONE = "–"


def _table(head: list[str], rows: list[list[str]]) -> str:
    """A table, with an empty line before it."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join(["", lines[0], "|" + "---|" * len(head), *lines[1:], ""])


def _code(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _rates(facts: ObjectiveFacts) -> str:
    """The rates of adapters and of the base's own weights."""
    rates = facts.defaults.learning_rate
    by_kind = {method.adapts: number(rate) for method, rate in rates.items()}
    return " / ".join(by_kind[adapts] for adapts in (True, False) if adapts in by_kind)


def _epochs(facts: ObjectiveFacts) -> str:
    return number(facts.defaults.epochs) if facts.defaults.epochs else f"{EPOCHS_OF_FEW} / {EPOCHS_OF_MANY}"


def examples() -> dict[Objective, list[str]]:
    """The examples that show each objective, as links from a page in `docs/`; of a chain of jobs, its last one."""
    links: dict[Objective, list[str]] = {objective: [] for objective in Objective}
    for path in sorted((ROOT / "examples").glob("*.yaml")):
        jobs = [job["spec"] for job in yaml.safe_load_all(path.read_text()) if job.get("kind") == "FineTuneJob"]
        if jobs:
            objective = Objective(jobs[-1].get("objective", Objective.SFT))
            links[objective].append(f"[{path.stem}](../examples/{path.name})")
    return links


def objectives(old: str) -> str:
    """What each objective learns from, is scored by and starts with, and its examples."""
    links = examples()
    rates = f"rate {', '.join(ADAPTER_METHODS)} / {', '.join(WEIGHT_METHODS)}"
    head = ["objective", "rows ([data](data.md))", "scored by", rates, "epochs", "`beta`"]
    rows = [
        [
            f"`{objective}`",
            _code([format.value for format in facts.data.formats]),
            " or ".join(f"`{name}`" for name in facts.metric.split(" or ")),
            _rates(facts),
            _epochs(facts),
            NONE if facts.defaults.beta is None else number(facts.defaults.beta),
            f"{facts.rollout.generations} × {LONGEST}" if facts.rollout else NONE,
            ", ".join(links[objective]),
        ]
        for objective, facts in OBJECTIVES.items()
    ]
    return _table([*head, "answers × tokens", "example"], rows) + "\n"


def choice(old: str) -> str:
    """Which objective to choose, by what one has and wants."""
    rows = [[facts.have, facts.want, f"`{objective}`"] for objective, facts in OBJECTIVES.items()]
    return _table(["you have", "you want", "objective"], rows) + "\n"


def capabilities(old: str) -> str:
    """Every objective with what it trains for, and the methods with their ZeRO stages."""
    rows = [[f"`{objective}`", facts.trains] for objective, facts in OBJECTIVES.items()]
    stages = {0: "DDP", 2: "ZeRO-2", 3: "ZeRO-3"}
    methods = [[f"`{m}`", ", ".join(stages[stage] for stage in METHODS[m].zero_stages)] for m in MethodType]
    return _table(["objective", "trains"], rows) + _table(["method", "distributed by"], methods) + "\n"


def rewards(old: str) -> str:
    """Every reward function with its value, and whether rows need a reference."""
    rows = [[f"`{name}`", facts.gives, "yes" if facts.compares else "no"] for name, facts in REWARDS.items()]
    return _table(["function", "value", "needs a reference"], rows) + "\n"


def formats(old: str) -> str:
    """The column of objectives in a table whose rows begin with a format; the other columns stay."""
    lines = []
    for line in old.splitlines(keepends=True):
        if match := re.match(r"(\| `(\w+)` \| )[^|]*( \|.*)", line, re.DOTALL):
            line = f"{match[1]}{', '.join(objectives_of(DataFormat(match[2]))) or NONE}{match[3]}"
        lines.append(line)
    return "".join(lines)


def arguments(old: str) -> str:
    """The arguments that users may add to vLLM's."""
    rows = [[about, _code([f"--{name}" for name in sorted(names)])] for about, names in ARGUMENTS.items()]
    return _table(["about", "arguments"], [*rows, ["only with these values", _code(sorted(CHOICES))]]) + "\n"


def row_shapes(old: str) -> str:
    """Rows of other tools, and what becomes of each with each objective."""
    return _table(["tool", "rows", "example", "objective", "read as"], [*cells()]) + "\n"


def alerts(_: str) -> str:
    """The alerts of the chart."""
    groups = yaml.safe_load((ROOT / "charts/hone/monitoring/rules.yaml").read_text())["groups"]
    rows = [
        [
            f"`{rule['alert']}`",
            rule["labels"]["severity"],
            rule.get("for", "at once"),
            rule["annotations"]["description"],
        ]
        for group in groups
        for rule in group["rules"]
    ]
    return _table(["alert", "severity", "after", "what it means"], [[_plain(cell) for cell in row] for row in rows])


def _plain(text: str) -> str:
    """A text of an alert without the templates of its values."""
    return re.sub(r"\{\{ \$(?:labels\.)?(\w+)[^}]*\}\}", r"<\1>", " ".join(text.split())).replace("<", "\\<")


def operator_metrics(_: str) -> str:
    """The metrics of the operator, as Prometheus has them."""
    collected = [family for family in Metrics().registry.collect() if not family.name.startswith("process_")]
    return _metrics(sorted(collected, key=lambda family: family.name))


def trainer_metrics(_: str) -> str:
    """The metrics of a trainer pod."""
    return _metrics(list(RankCollector(StatusDir(Path("/nonexistent"))).collect()))


def _metrics(families: list[Metric]) -> str:
    rows = [
        [f"`{each.name}{'_total' if each.type == 'counter' else ''}`", each.type, each.documentation.replace("|", "/")]
        for each in families
    ]
    return _table(["metric", "type", "what it is"], rows)


BLOCKS: Mapping[str, Callable[[str], str]] = {
    "choice": choice,
    "objectives": objectives,
    "capabilities": capabilities,
    "rewards": rewards,
    "formats": formats,
    "arguments": arguments,
    "row-shapes": row_shapes,
    "alerts": alerts,
    "operator-metrics": operator_metrics,
    "trainer-metrics": trainer_metrics,
}
"""By name: what a block's text becomes."""


def render(text: str) -> str:
    """A page with its generated blocks as the code has them.

    Raises:
        KeyError: a block has a name that is not in `BLOCKS`.
    """
    return _BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match[2]](match[3])}{match[4]}", text)


def stale(root: Path = ROOT) -> dict[Path, str]:
    """The pages that are not as the code has them, with what they should be."""
    pages = {root / name: (root / name).read_text(encoding="utf-8") for name in PAGES}
    return {path: new for path, text in pages.items() if (new := render(text)) != text}


def main() -> int:
    """Write the pages, or with `--check` say which are stale and exit with 1."""
    parser = argparse.ArgumentParser(prog="python -m dev.tables", description="Write the documentation's tables.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with code 1 if a page is out of date")
    check = parser.parse_args().check
    pages = stale()
    for path, text in pages.items():
        if check:
            print(f"{path.relative_to(ROOT)} is stale: run `make generate`", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if check and pages else 0


if __name__ == "__main__":
    sys.exit(main())
