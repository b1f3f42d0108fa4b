"""What comes with an artifact: a model card as the Hub reads it, and an in-toto statement of what it was made from."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from huggingface_hub import ModelCard
from test_publish import _plan

from hone.contract.plan import BadRows, DatasetSummary, Plan
from hone.contract.report import ArtifactFile, Report
from hone.contract.results import ArtifactSummary, DownloadedModel, EvaluationSummary, Interval, Score
from hone.contract.runconfig import RunConfig
from hone_trainer.artifact import card, provenance
from hone_trainer.protocol.planfile import PlanFile

COMMIT, DIGEST = "c" * 40, "sha256:" + "b" * 64
BASE_CARD = "---\nlicense: apache-2.0\nlicense_link: https://example.com/licence\ntags: [a]\n---\n# Base\n"
SCORES = EvaluationSummary(
    scores=[
        Score(
            metric="exactMatch",
            higher_is_better=True,
            samples=24,
            base=Interval(value=0.25, lower=0.1, upper=0.4),
            tuned=Interval(value=0.75, lower=0.6, upper=0.9),
            improvement=Interval(value=0.5, lower=0.3, upper=0.7),
        )
    ]
)
STATEMENT = {
    "type": "object",
    "required": ["_type", "subject", "predicateType", "predicate"],
    "additionalProperties": False,
    "properties": {
        "_type": {"const": "https://in-toto.io/Statement/v1"},
        "subject": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["digest"],
                "properties": {
                    "name": {"type": "string", "minLength": 1},
                    "digest": {
                        "type": "object",
                        "minProperties": 1,
                        "additionalProperties": {"type": "string", "pattern": "^[0-9a-f]+$"},
                    },
                },
            },
        },
        "predicateType": {"const": "https://slsa.dev/provenance/v1"},
        "predicate": {
            "type": "object",
            "required": ["buildDefinition", "runDetails"],
            "properties": {
                "buildDefinition": {
                    "type": "object",
                    "required": ["buildType", "externalParameters"],
                    "properties": {
                        "buildType": {"type": "string", "format": "uri"},
                        "resolvedDependencies": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "anyOf": [{"required": ["uri"]}, {"required": ["digest"]}],
                                "additionalProperties": False,
                                "properties": {
                                    "name": {"type": "string"},
                                    "uri": {"type": "string"},
                                    "digest": {
                                        "type": "object",
                                        "additionalProperties": {"type": "string", "pattern": "^[0-9a-f]+$"},
                                    },
                                    "annotations": {"type": "object"},
                                },
                            },
                        },
                    },
                },
                "runDetails": {
                    "type": "object",
                    "required": ["builder"],
                    "properties": {"builder": {"type": "object", "required": ["id"]}},
                },
            },
        },
    },
}
"""The fields that in-toto's Statement v1 and SLSA's Provenance v1 require, and their types."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The base model's directory."""
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "README.md").write_text(BASE_CARD)
    return directory


def run(model: Path, name: str = "hf://acme/base") -> RunConfig:
    """A run with this base."""
    return RunConfig.from_dict(
        {
            "job": {"namespace": "team-a", "name": "bot", "uid": "1"},
            "modelName": name,
            "data": {"train": "/mnt/data"},
            "paths": {"model": str(model)},
        }
    )


def planned(**dataset: Any) -> PlanFile:
    """What prepare decided."""
    summary: dict[str, Any] = {
        "digest": "sha256:" + "d" * 64,
        "format": "Chat",
        "train_on": "Assistant",
        "train_rows": 90,
        "validation_rows": 5,
        "test_rows": 5,
    }
    download = DownloadedModel(field="spec.model", uri="hf://acme/base", revision=COMMIT, size_bytes=1)
    return PlanFile(
        plan=Plan.from_dict(_plan()),
        dataset=DatasetSummary(**{**summary, **dataset}),
        prepared="x",
        run_config_digest="x",
        model_digest=DIGEST,
        model_files={"config.json": "c" * 64},
        downloads=[download],
    )


def written(config: RunConfig, plan: PlanFile, tmp_path: Path, kind: str = "Model") -> ModelCard:
    """The card as huggingface_hub reads it."""
    card.write_card(tmp_path, config, plan, kind, SCORES, ["Notes."])
    return ModelCard.load(tmp_path / "README.md")


@pytest.mark.parametrize(
    ("kind", "relation", "library"), [("Model", "finetune", "transformers"), ("Adapter", "adapter", "peft")]
)
def test_the_hub_reads_the_card(model: Path, tmp_path: Path, kind: str, relation: str, library: str) -> None:
    data = written(run(model), planned(), tmp_path, kind).data
    assert (data.base_model, data.base_model_relation, data.library_name) == ("acme/base", relation, library)
    assert (data.license, data.license_link) == ("apache-2.0", "https://example.com/licence")
    assert data.pipeline_tag == "text-generation"
    assert data.tags == ["hone", "sft", "lora"]


def test_the_card_names_base_data_scores_and_what_was_left_out(model: Path, tmp_path: Path) -> None:
    bad = [
        BadRows(reason="column `salary` is empty", count=3, first="a.jsonl:1"),
        BadRows(reason="x", count=4, first="y"),
    ]
    text = written(run(model), planned(bad_rows=bad, duplicate_rows=2, truncated_rows=1), tmp_path).text
    for words in (COMMIT, DIGEST, "90 rows", "d" * 64, "by its own card: apache-2.0", "7 rows that could not be used"):
        assert words in text
    assert "2 rows that another split has" in text
    assert "the ends of 1 training rows" in text
    assert "| exactMatch | higher | 24 | 0.25 [0.1, 0.4] | 0.75 [0.6, 0.9] | 0.5 [0.3, 0.7] |" in text
    assert "salary" not in text, "the card leaves the cluster, and reasons may name columns"


def test_a_base_that_is_not_on_the_hub_is_not_linked_to_one_that_is(model: Path, tmp_path: Path) -> None:
    read = written(run(model, "models/base"), planned(), tmp_path)
    assert read.data.base_model is None
    assert "`models/base`" in read.text


@pytest.mark.parametrize(
    "content",
    [
        None,
        "no front matter",
        "---\n: [\n---\n",
        "---\nlicense: [a]\n---\n",
        '---\nlicense: "a\\nb: c"\n---\n',
        "---\n",
    ],
)
def test_a_licence_that_is_not_known_is_not_claimed(model: Path, tmp_path: Path, content: str | None) -> None:
    (model / "README.md").unlink()
    if content is not None:
        (model / "README.md").write_text(content)
    read = written(run(model), planned(), tmp_path)
    assert read.data.license is None
    assert "check its terms" in read.text


def test_a_card_that_is_a_link_out_of_the_volume_is_not_read(model: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.md"
    outside.write_text(BASE_CARD)
    (model / "README.md").unlink()
    (model / "README.md").symlink_to("/proc/self/environ")
    assert card.licence_of(model) == {}


def report(plan: PlanFile) -> Report:
    """The report of the run."""
    files = [ArtifactFile(path="model.safetensors", sha256="e" * 64, size_bytes=1)]
    artifact = ArtifactSummary(digest="sha256:" + "f" * 64, size_bytes=1, kind="Model", base_digest=DIGEST)
    return Report(
        job=run(Path("/mnt/model")).job,
        model_name="hf://acme/base",
        final_step=1,
        plan=plan.plan,
        dataset=plan.dataset,
        artifact=artifact,
        files=files,
        max_new_tokens=1,
    )


@pytest.mark.parametrize("image", [None, "trainer:1", "trainer:1@sha256:" + "a" * 64])
def test_the_statement_has_all_fields_that_in_toto_and_slsa_require(model: Path, image: str | None) -> None:
    plan, config = planned(), run(model)
    statement = json.loads(provenance.statement(config, report(plan), plan, image))
    jsonschema.validate(statement, STATEMENT)
    assert statement["subject"] == [{"name": "model.safetensors", "digest": {"sha256": "e" * 64}}]
    made_from = {each["name"]: each for each in statement["predicate"]["buildDefinition"]["resolvedDependencies"]}
    assert made_from["base"]["digest"] == {"hone.dev/sha256": "b" * 64}
    assert made_from["base"]["annotations"]["commit"] == COMMIT
    assert made_from["base/config.json"]["digest"] == {"sha256": "c" * 64}
    assert provenance.base_files(json.dumps(statement).encode()) == {"config.json": "c" * 64}
    assert made_from["data"]["digest"] == {"hone.dev/sha256": "d" * 64}
    assert re.fullmatch("[0-9a-f]{64}", made_from["runConfig"]["digest"]["hone.dev/sha256"])
    assert ("trainerImage" in made_from) == (image is not None)
    if image and "@" in image:
        assert made_from["trainerImage"]["digest"] == {"sha256": "a" * 64}


@pytest.mark.parametrize("stored", [None, b"", b"[]", b'{"predicate": {"buildDefinition": 1}}'])
def test_the_statement_of_a_copy_is_about_its_own_files(model: Path, stored: bytes | None) -> None:
    files = [ArtifactFile(path="README.md", sha256="9" * 64, size_bytes=1)]
    statement = json.loads(provenance.about(stored, files, run(model), report(planned())))
    assert statement["subject"] == [{"name": "README.md", "digest": {"sha256": "9" * 64}}]
    assert "buildDefinition" in statement["predicate"]
