"""docs/objectives.md: every objective and method is on it, as the table in the code has it, with an example of it."""

import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml

from hone.api.finetunejob import RewardFunction
from hone.contract import rewards as contract
from hone.contract.methods import MethodType
from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.rewards import REWARDS, Rewards
from hone.contract.settings import DataFormat
from hone.core.finetunejob.resources.claims import DEFAULT_WORKSPACE_SIZE
from hone.core.finetunejob.resources.runconfig import DEFAULT_OUTPUT_SIZE
from hone.core.finetunejob.run import TRAIN, Run
from hone.core.finetunejob.steps import STEPS
from hone.core.settings import Settings
from hone_trainer.data.formats import to_sample
from hone_trainer.planning.batches import SMALL_DATA_ROWS, default_epochs
from hone_trainer.planning.rollouts import LONGEST
from hone_trainer.protocol.errors import BadInput, RowFault
from hone_trainer.rewards.checks import ARGUMENTS, check_rewards
from hone_trainer.rewards.code import LIMIT_SECONDS
from tests.docs.support import ROOT, TYPES, Manifest, blocks, documents, field_exists, problems

PAGE = (ROOT / "docs/objectives.md").read_text(encoding="utf-8")
OVERVIEW, FACTS, METHODS = (part.partition("\n## ")[0] for part in PAGE.split("\n## ")[1:4])
ROWS = {row[0]: row[1:] for row in re.findall(rf"^\| `(\w+)` \|{' (.+) [|]' * 7}$", FACTS, re.MULTILINE)}
SERVER, FUNCTIONS, WHOLE = (yaml.safe_load(block) for block in blocks(PAGE, "yaml"))


def test_it_shows_every_objective_in_the_order_of_the_table() -> None:
    assert list(ROWS) == [objective.value for objective in OBJECTIVES]
    assert set(re.findall(r"\| `(\w+)` \|$", OVERVIEW, re.MULTILINE)) == set(ROWS)


@pytest.mark.parametrize("objective", Objective)
def test_a_row_tells_what_the_table_has(objective: Objective) -> None:
    facts = OBJECTIVES[objective]
    formats, metric, rates, epochs, beta, answers, _ = ROWS[objective.value]
    assert formats.replace("`", "").split(", ") == [format.value for format in facts.data.formats]
    assert metric.replace("`", "") == facts.metric
    documented = [float(rate) for rate in rates.split(" / ")]
    assert documented == [facts.defaults.learning_rate[method] for method in (MethodType.LORA, MethodType.FULL)]
    by_rows = [default_epochs(rows) for rows in (SMALL_DATA_ROWS - 1, SMALL_DATA_ROWS)]
    expected = [facts.defaults.epochs] if facts.defaults.epochs else by_rows
    assert [float(number) for number in epochs.split(" / ")] == expected
    assert beta == ("–" if facts.defaults.beta is None else f"{facts.defaults.beta:g}")
    assert answers == (f"{facts.rollout.generations} × {LONGEST}" if facts.rollout else "–")


def test_what_its_defaults_depend_on_is_the_code_s() -> None:
    assert f"fewer than {SMALL_DATA_ROWS:,} rows" in FACTS
    assert f"`spec.output.size` (default {DEFAULT_OUTPUT_SIZE})" in PAGE
    assert f"`spec.workspace.size` (default {DEFAULT_WORKSPACE_SIZE})" in PAGE
    assert f"its `weight` (default {RewardFunction().weight:g};" in PAGE


@pytest.mark.parametrize(
    "manifest", [WHOLE, *({**WHOLE, "spec": {**WHOLE["spec"], **part["spec"]}} for part in (FUNCTIONS, SERVER))]
)
def test_its_manifests_are_valid(manifest: Manifest) -> None:
    assert problems(manifest) == []


def test_its_gpus_of_a_server_are_added_to_those_of_training() -> None:
    resource = {"metadata": {"name": "a", "namespace": "a", "uid": "a"}, "spec": {**WHOLE["spec"], **SERVER["spec"]}}
    status = {"plan": {"generationEngine": "VLLM"}}
    gpus = STEPS[TRAIN].gpus(Run({**resource, "status": status}, Settings()))
    assert f"The trainer pod above asks for {gpus} GPUs." in PAGE


def test_its_functions_are_one_of_hone_s_and_one_of_one_s_own() -> None:
    first, second = FUNCTIONS["spec"]["reward"]["functions"]
    assert first["name"] in list(REWARDS)
    assert second["configMap"] and second["weight"] < 0


def test_its_whole_manifest_tells_the_memory_of_several_gpus() -> None:
    assert WHOLE["spec"]["compute"]["gpusPerNode"] > 1
    assert WHOLE["spec"]["compute"]["gpuMemory"]


@pytest.mark.parametrize("objective", Objective)
def test_its_examples_are_of_the_objective(objective: Objective) -> None:
    links = re.findall(r"\]\(\.\./(examples/[\w-]+\.yaml)\)", ROWS[objective.value][-1])
    assert links
    for link in links:
        jobs = [manifest["spec"] for manifest in documents(ROOT / link) if manifest["kind"] == "FineTuneJob"]
        assert objective.value in {job.get("objective", "SFT") for job in jobs}


def test_it_shows_every_method_and_the_default_one() -> None:
    documented = re.findall(r"^\| `(\w+)`( \(default\))? \|", METHODS, re.MULTILINE)
    assert [name for name, _ in documented] == [method.value for method in MethodType]
    assert [name for name, default in documented if default] == ["LoRA"]


def test_it_shows_every_reward_function_as_the_table_has_it() -> None:
    section = PAGE.partition("### Rewards")[2]
    documented = re.findall(r"^\| `(\w+)` \| (.+) \| (yes|no) \|$", section, re.MULTILINE)
    assert documented == [
        (name.value, facts.gives, "yes" if facts.compares else "no") for name, facts in REWARDS.items()
    ]


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        pytest.param(lambda code: code, False, id="as it stands"),
        pytest.param(lambda code: code.replace(", **kwargs", ""), True, id="without further keywords"),
        pytest.param(lambda code: f"class Own:\n    {code}", True, id="not at the top level"),
    ],
)
def test_own_code_is_taken_as_it_is_written_there(change: Callable[[str], str], refused: bool, tmp_path: Path) -> None:
    (head,) = re.findall(r"`(def reward\([^`]*\))`", " ".join(PAGE.split()))
    assert [name.partition("=")[0] for name in head[len("def reward(") : -1].split(", ")[:-1]] == list(ARGUMENTS)
    (tmp_path / "reward.py").write_text(change(f"{head}: return []\n"))
    rewards = Rewards(functions=[contract.RewardFunction(mounted=str(tmp_path / "reward.py"), source="own/reward.py")])
    with pytest.raises(BadInput) if refused else nullcontext():
        check_rewards(rewards)


@pytest.mark.parametrize(("reference", "refused"), [("4", False), (["4", "four"], False), (4, True)])
def test_a_reference_is_text_there(reference: object, refused: bool) -> None:
    with pytest.raises(RowFault, match="reference") if refused else nullcontext():
        to_sample({"prompt": "2 + 2 =", "reference": reference}, DataFormat.PROMPT)


def test_what_own_code_may_take_is_the_limit() -> None:
    assert f"at most {LIMIT_SECONDS:g} seconds" in PAGE


def test_every_field_in_it_exists() -> None:
    fields = set(re.findall(r"`((?:spec|status)\.[a-zA-Z.]+)`", PAGE))
    assert len(fields) >= 5
    assert [field for field in fields if not any(field_exists(kind, field) for kind in TYPES)] == []
