"""docs/objectives.md: every objective and method is on it, as the table in the code has it, with an example of it."""

import re

import pytest

from hone.contract.objectives import OBJECTIVES
from hone.contract.rewards import REWARDS
from hone.contract.settings import MethodType, Objective
from hone_trainer.rewards.code import LIMIT_SECONDS
from tests.docs.support import ROOT, TYPES, documents, field_exists

PAGE = (ROOT / "docs/objectives.md").read_text(encoding="utf-8")
OVERVIEW, FACTS, METHODS = (part.partition("\n## ")[0] for part in PAGE.split("\n## ")[1:4])
ROWS = {row[0]: row[1:] for row in re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \| (.+) \| (.+) \|$", FACTS, re.MULTILINE)}


def test_it_shows_every_objective_in_the_order_of_the_table() -> None:
    assert list(ROWS) == [objective.value for objective in OBJECTIVES]
    assert set(re.findall(r"\| `(\w+)` \|$", OVERVIEW, re.MULTILINE)) == set(ROWS)


@pytest.mark.parametrize("objective", Objective)
def test_a_row_tells_what_the_table_has(objective: Objective) -> None:
    facts = OBJECTIVES[objective]
    formats, metric, rates, _ = ROWS[objective.value]
    assert formats.replace("`", "").split(", ") == [format.value for format in facts.formats]
    assert metric.replace("`", "") == facts.metric
    told = [float(rate) for rate in rates.split(" / ")]
    assert told == [facts.learning_rate[method] for method in (MethodType.LORA, MethodType.FULL)]


@pytest.mark.parametrize("objective", Objective)
def test_its_examples_are_of_the_objective(objective: Objective) -> None:
    links = re.findall(r"\]\(\.\./(examples/[\w-]+\.yaml)\)", ROWS[objective.value][-1])
    assert links
    for link in links:
        jobs = [manifest["spec"] for manifest in documents(ROOT / link) if manifest["kind"] == "FineTuneJob"]
        assert objective.value in {job.get("objective", "SFT") for job in jobs}


def test_it_shows_every_method_and_the_default_one() -> None:
    told = re.findall(r"^\| `(\w+)`( \(default\))? \|", METHODS, re.MULTILINE)
    assert [name for name, _ in told] == [method.value for method in MethodType]
    assert [name for name, default in told if default] == ["LoRA"]


def test_it_shows_every_reward_function_as_the_table_has_it() -> None:
    section = PAGE.partition("### Rewards")[2]
    told = re.findall(r"^\| `(\w+)` \| (.+) \| (yes|no) \|$", section, re.MULTILINE)
    assert told == [(name.value, facts.gives, "yes" if facts.compares else "no") for name, facts in REWARDS.items()]


def test_what_own_code_may_take_is_the_limit() -> None:
    assert f"at most {LIMIT_SECONDS:g} seconds" in PAGE


def test_every_field_in_it_exists() -> None:
    fields = set(re.findall(r"`((?:spec|status)\.[a-zA-Z.]+)`", PAGE))
    assert len(fields) >= 5
    assert [field for field in fields if not any(field_exists(kind, field) for kind in TYPES)] == []
