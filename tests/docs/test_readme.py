"""The README's promises that a machine can check: manifests, commands, paths, fields, and the table of failures."""

import re
import shlex

import pytest
import yaml

from hone.contract.exits import POLICIES, Policy
from hone.contract.methods import MethodType
from hone.contract.objectives import Objective
from hone.core import names
from tests.docs.support import ROOT, TYPES, Manifest, blocks, field_exists, problems

README = (ROOT / "README.md").read_text(encoding="utf-8")
MANIFESTS: list[Manifest] = [yaml.safe_load(block) for block in blocks(README, "yaml")]
COMMANDS = [
    line.partition(" #")[0].strip() for block in blocks(README, "sh") for line in block.splitlines() if line.strip()
]
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_it_shows_a_short_manifest_of_each_kind() -> None:
    assert [manifest["kind"] for manifest in MANIFESTS] == list(TYPES)
    assert all(len(block.splitlines()) <= 20 for block in blocks(README, "yaml"))


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["kind"])
def test_a_manifest_in_it_is_valid(manifest: Manifest) -> None:
    assert problems(manifest) == []


def test_every_make_target_in_it_exists() -> None:
    named = set(re.findall(r"\bmake ([a-z][a-z0-9-]*)", README))
    assert {"demo", "test", "check", "integration"} <= named
    assert named <= TARGETS


def test_every_command_in_it_is_one_that_can_be_run() -> None:
    known = {
        "curl": {"$URL/classify", "http://127.0.0.1:8000/v1/chat/completions"},
        "make": TARGETS,
        "kubectl": {"get", "wait", "explain", "apply", "logs", "create", "port-forward"},
        "helm": {"upgrade"},
        "find": {"."},
    }
    for text in COMMANDS:
        # What a variable is set to is a command, too.
        program, verb, *_ = shlex.split(re.sub(r"^[A-Z]+=\$\((.*)\)$", r"\1", text))
        assert verb in known[program], text


def test_the_chart_that_it_installs_is_there() -> None:
    installs = [shlex.split(text) for text in COMMANDS if text.startswith("helm")]
    assert installs
    for install in installs:
        chart = next(argument for argument in install if "/" in argument)
        assert (ROOT / chart / "Chart.yaml").is_file()


def test_every_path_and_link_in_it_exists() -> None:
    linked = {path for path in re.findall(r"\]\(([^)#][^)]*)\)", README) if "://" not in path}
    listed = set(re.findall(r"^\| `([^`]+/)` \|", README, re.MULTILINE))
    assert len(listed) >= 8
    assert [path for path in linked | listed if not (ROOT / path).exists()] == []


def test_every_link_within_it_has_its_heading() -> None:
    headings = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", README, re.M)}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= headings


def test_every_field_in_it_exists() -> None:
    fields = set(re.findall(r"`((?:spec|status)\.[a-zA-Z.]+)(?::[^`]*)?`", README))
    fields |= {f"spec.{name}" for name in re.findall(r"`((?:compute|retry|output)\.[a-zA-Z.]+)`", README)}
    assert len(fields) >= 5
    assert [field for field in fields if not any(field_exists(kind, field) for kind in TYPES)] == []


def test_every_value_of_the_chart_in_it_exists() -> None:
    values = yaml.safe_load((ROOT / "charts/hone/values.yaml").read_text())
    assert "registry" in values["image"]
    assert "watchNamespaces" in values
    for name in ("image.registry", "watchNamespaces"):
        assert f"`{name}`" in README


def test_the_table_of_failures_is_that_of_the_code() -> None:
    pattern = r"^\| `([A-Z][A-Za-z]+)` \| [^|]+ \| ([^|]+) \| ((?:yes|no)[^|]*) \| ([^|]+) \|$"
    rows = re.findall(pattern, README, re.MULTILINE)
    table = {name: (code.strip(), counts, "ends the run" not in does) for name, code, counts, does in rows}
    expected = {
        str(name): ("–" if policy.exit_code is None else str(policy.exit_code), _counts(policy), policy.retries)
        for name, policy in POLICIES.items()
    }
    assert table == expected


def _counts(policy: Policy) -> str:
    """The table's words: that the class counts, and how often it may happen. One retry is two times."""
    times = {None: "", 2: ", once"}.get(policy.at_most, f", at most {policy.at_most}")
    return ("yes" if policy.counts else "no") + times


def test_every_label_that_people_select_by_is_in_it() -> None:
    named = set(re.findall(r"\bhone\.dev/[a-z]+\b", README)) - {"hone.dev/v1alpha1"}
    assert named == {*names.RESOURCE_LABELS.values(), names.STEP_LABEL, names.ROLE_LABEL}
    assert {name.replace(".", "_").replace("/", "_") for name in named} <= set(re.findall(r"\bhone_\w+", README))


def test_it_promises_every_objective_and_method_that_there_is_and_no_other() -> None:
    limits = README.partition("## Limits")[2].partition("## ")[0]
    named = set(re.findall(r"`([A-Z][A-Za-z]+)`", limits)) - {"RollingUpdate"}
    assert named == {str(value) for value in (*Objective, *MethodType)}


def test_every_kubectl_wait_in_the_documents_has_a_timeout() -> None:
    # kubectl's default is 30 seconds, which is less than any tuning takes.
    files = [path for pattern in ("*.md", "charts/hone/templates/NOTES.txt") for path in sorted(ROOT.rglob(pattern))]
    documents = {path: path.read_text(encoding="utf-8") for path in files if ".venv" not in path.parts}
    waits = {
        f"{path.relative_to(ROOT)}: {command}": command
        for path, text in documents.items()
        for command in re.findall(r"kubectl (?:-\S+ \S+ )*wait [^`\n#]*", text)
    }
    assert waits
    assert [where for where, command in waits.items() if "--timeout" not in command] == []
