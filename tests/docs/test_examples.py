"""The examples: valid for the CRDs, consistent among themselves, with data of the promised size."""

import json
import runpy
import subprocess
from pathlib import Path

import pytest
import yaml

from dev.kube import command
from hone.contract.methods import MethodType
from hone.contract.objectives import Objective
from tests.docs.support import ROOT, TYPES, Manifest, documents, problems

EXAMPLES = ROOT / "examples"
FILES = sorted(
    path
    for path in EXAMPLES.rglob("*.yaml")
    if path.name != "kustomization.yaml" and path.parent.name not in ("autoscaling", "gitops")
)
TICKETS = EXAMPLES / "tickets"
DATA = EXAMPLES / "data/reviews.jsonl"
LABELED = EXAMPLES / "data/labeled-reviews.jsonl"
PAIRS = EXAMPLES / "data/review-pairs.jsonl"
PROMPTS = EXAMPLES / "data/review-stars.jsonl"
RATED = EXAMPLES / "data/rated-reviews.jsonl"


def of_kind(kind: str) -> list[Manifest]:
    """All example manifests of a kind."""
    return [document for path in FILES for document in documents(path) if document["kind"] == kind]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_example_is_valid(path: Path) -> None:
    manifests = documents(path)
    assert manifests
    for manifest in manifests:
        assert problems(manifest) == []


def test_a_misspelled_field_would_be_found() -> None:
    (job, _) = documents(EXAMPLES / "sentiment-lora.yaml")
    job["spec"]["compute"]["gpuPerNode"] = 0
    assert "gpuPerNode" in problems(job)[0]


def test_job_and_deployment_of_the_demo_are_in_one_file() -> None:
    assert [document["kind"] for document in documents(TICKETS / "tickets.yaml")] == list(TYPES)


def test_every_objective_and_method_is_shown_and_both_ways_to_distribute() -> None:
    jobs = [job["spec"] for job in of_kind("FineTuneJob")]
    assert {job.get("method", {}).get("type", "LoRA") for job in jobs} == set(MethodType)
    assert {job.get("objective", "SFT") for job in jobs} == set(Objective)
    assert any(job["compute"].get("nodes", 1) > 1 and job["compute"].get("zeroStage") == 2 for job in jobs)


def test_a_deployment_names_a_job_of_the_examples() -> None:
    jobs = {job["metadata"]["name"] for job in of_kind("FineTuneJob")}
    models = [mdep["spec"]["model"] for mdep in of_kind("ModelDeployment")]
    assert {model["jobRef"]["name"] for model in models if "jobRef" in model} <= jobs


def test_a_published_model_is_served_from_where_a_job_of_the_examples_writes_it() -> None:
    outputs = [job["spec"]["output"]["uri"] for job in of_kind("FineTuneJob") if "uri" in job["spec"].get("output", {})]
    models = [mdep["spec"]["model"] for mdep in of_kind("ModelDeployment")]
    assert [model["uri"] for model in models if "uri" in model] == outputs != []


def test_names_are_unique() -> None:
    for kind in TYPES:
        names = [manifest["metadata"]["name"] for manifest in of_kind(kind)]
        assert len(names) == len(set(names))


@pytest.mark.slow
def test_the_kustomization_makes_the_config_map_that_the_jobs_read() -> None:
    manifests = list(yaml.safe_load_all(_kubectl("kustomize", str(EXAMPLES))))
    (config_map,) = (manifest for manifest in manifests if manifest["kind"] == "ConfigMap")
    for job in (job for path in FILES if path.parent == EXAMPLES for job in documents(path)):
        if job["kind"] != "FineTuneJob":
            continue
        train = job["spec"]["dataset"]["train"]
        places = [train, *train.get("sources", []), *job["spec"].get("reward", {}).get("functions", [])]
        for source in (place["configMap"] for place in places if "configMap" in place):
            assert source["name"] == config_map["metadata"]["name"]
            assert config_map["data"][source["key"]] == (EXAMPLES / "data" / source["key"]).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_demo_has_a_kustomization_of_its_own() -> None:
    manifests = {manifest["kind"]: manifest for manifest in yaml.safe_load_all(_kubectl("kustomize", str(TICKETS)))}
    source = manifests["FineTuneJob"]["spec"]["dataset"]["train"]["configMap"]
    assert manifests["ConfigMap"]["metadata"]["name"] == source["name"]
    assert manifests["ConfigMap"]["data"][source["key"]] == (TICKETS / source["key"]).read_text(encoding="utf-8")


def _kubectl(*arguments: str) -> str:
    return subprocess.run([command("kubectl"), *arguments], check=True, capture_output=True, text=True).stdout


def test_the_data_has_at_least_500_rows_and_fits_into_a_config_map() -> None:
    assert DATA.stat().st_size <= 200 * 1024
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    assert len(rows) >= 500
    assert len({json.dumps(row) for row in rows}) == len(rows)
    for row in rows:
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
        assert row["messages"][1]["content"] in ("positive", "negative")


def test_the_labeled_data_fits_too_and_holds_both_classes_alike() -> None:
    assert LABELED.stat().st_size <= 200 * 1024
    rows = [json.loads(line) for line in LABELED.read_text(encoding="utf-8").splitlines()]
    assert len(rows) >= 500
    assert all(row.keys() == {"text", "label"} for row in rows)
    labels = [row["label"] for row in rows]
    assert labels.count("positive") == labels.count("negative") == len(rows) / 2


def test_the_pairs_fit_too_and_each_has_the_right_answer_and_the_wrong_one() -> None:
    assert PAIRS.stat().st_size <= 200 * 1024
    rows = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]
    assert len(rows) >= 500
    answers = [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows]
    assert set(answers) == {("positive", "negative"), ("negative", "positive")}


def test_the_rated_answers_fit_too_and_are_good_and_bad_alike() -> None:
    assert RATED.stat().st_size <= 200 * 1024
    rows = [json.loads(line) for line in RATED.read_text(encoding="utf-8").splitlines()]
    assert len(rows) >= 500
    assert 0.4 < sum(row["label"] for row in rows) / len(rows) < 0.6


def test_the_prompts_fit_too_and_their_function_rewards_the_reference_most() -> None:
    assert PROMPTS.stat().st_size <= 200 * 1024
    rows = [json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    assert len(rows) >= 500
    references = [row["reference"] for row in rows]
    assert references.count("Four stars.") == references.count("Two stars.") == len(rows) / 2
    reward = runpy.run_path(str(EXAMPLES / "data/stars.py"))["reward"]
    completions = [[{"role": "assistant", "content": text}] for text in ("Four stars.", "Five stars.", "One star.")]
    assert reward([], completions, reference=["Four stars."] * 3) == [1.0, 0.5, 0.0]


def test_the_demo_asks_what_the_data_has_not() -> None:
    from dev.ask import MESSAGES, SEED
    from dev.data.tickets import tickets

    text = (TICKETS / "tickets.jsonl").read_text(encoding="utf-8")
    assert not [message for message, _ in tickets(MESSAGES, SEED) if json.dumps(message)[1:-1] in text]
