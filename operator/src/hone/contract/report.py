"""The report: what a run produced, and its scores. finish writes it as `<output>/report.json`, next to the artifact.

It is there once the artifact is complete, first without scores, and written again with each new set of scores.
"""

from typing import Annotated

from pydantic import Field

from hone.contract import VERSION
from hone.contract.base import Model
from hone.contract.history import History
from hone.contract.plan import Count, DatasetSummary, Plan
from hone.contract.record import RunRecord
from hone.contract.results import ArtifactSummary, EvaluationSummary
from hone.contract.runconfig import JobIdentity
from hone.contract.search import SearchRecord
from hone.contract.settings import Evaluation

ARTIFACT_DIR = "artifact"
"""Directory under `paths.output` with the files that are served."""
SUMS_FILE = "SHA256SUMS"
"""Of a published artifact: a line for each other file, as `sha256sum` writes it. Its SHA-256 is the digest of all."""
REPORT_FILE = "report.json"
"""File under `paths.output`, next to the artifact's directory."""
PAGE_FILE = "report.html"
"""The report for people, next to it: one file that loads nothing from elsewhere."""
MAX_LABEL = 128
"""Most characters of a class in it."""
MAX_CONFUSED = 20
"""Most classes of a confusion matrix, the most frequent ones; all others are one more, without a name."""


class ArtifactFile(Model):
    """One exported file."""

    path: Annotated[str, Field(description="Path under the artifact's directory.")]
    sha256: Annotated[str, Field(description="64 hex digits.")]
    size_bytes: Annotated[int, Field(ge=0, description="Size in bytes.")]


class Manifest(Model):
    """The files of a directory. A report is one, too."""

    files: Annotated[list[ArtifactFile], Field(description="The files, by path.")]


class BaseFile(Model):
    """One file of the base model as it was when its adapter was exported."""

    path: Annotated[str, Field(description="Path under the base model's directory.")]
    size_bytes: Annotated[int, Field(ge=0, description="Size in bytes.")]
    modified: Annotated[int, Field(ge=0, description="Time of its last change, in nanoseconds since the epoch.")]


class BaseFiles(Model):
    """The files of a base model. A report is one, too."""

    base_files: Annotated[list[BaseFile], Field(description="The files, by path.")] = []


class Sample(Model):
    """A test prompt with the answers of base and tuned model, decoded greedily; or a text with its class."""

    prompt: Annotated[str, Field(description="The text that the model received, chat template applied.")]
    reference: Annotated[str, Field(description="The answer in the test data.")]
    base: Annotated[str, Field(description="The base model's answer; for classification, the most frequent class.")]
    tuned: Annotated[str, Field(description="The tuned model's answer; for pairs, its rating of both answers.")]
    gain: Annotated[
        float | None,
        Field(description="By how much the tuned model is better for this row in the main metric; below 0: worse."),
    ] = None
    probabilities: Annotated[
        dict[str, float] | None, Field(description="Classification: the tuned model's probability of each class.")
    ] = None


class Confusion(Model):
    """Which classes the tuned model takes for which, in numbers of test rows."""

    labels: Annotated[
        list[Annotated[str, Field(max_length=MAX_LABEL)]],
        Field(max_length=MAX_CONFUSED, description="The classes, most frequent in the test rows first."),
    ]
    counts: Annotated[
        list[list[Count]],
        Field(
            max_length=MAX_CONFUSED + 1,
            description="Rows of each class (in lines) by the class that the model gave (in columns). One line and "
            "column more than labels: all other classes.",
        ),
    ]


class ScoredRows(Model):
    """Which rows were scored, so that two runs can tell whether they were the same."""

    prompts: Annotated[str, Field(description="SHA-256 of the prompts, or of the texts, chat template applied.")]
    references: Annotated[str, Field(description="SHA-256 of the answers or classes in the test data.")]


class JudgeRecord(Model):
    """How answers were compared by another model."""

    url: Annotated[str, Field(description="Where it is.")]
    model: Annotated[str, Field(description="Its name there.")]
    prompt: Annotated[str, Field(description="What it was asked, with names for the parts of a row.")]


class Report(Model):
    """What a run produced, and its scores."""

    version: int = VERSION
    job: JobIdentity
    model_name: Annotated[str, Field(description="Name of the base model, as the user wrote it.")]
    final_step: Annotated[int, Field(ge=0, description="Optimizer step of the exported weights.")]
    plan: Plan
    dataset: DatasetSummary
    evaluation: Annotated[EvaluationSummary | None, Field(description="The scores, once there are any.")] = None
    evaluated_with: Annotated[
        Evaluation | None, Field(description="Settings by which the scores were made. None: those of the RunConfig.")
    ] = None
    artifact: ArtifactSummary
    files: Annotated[list[ArtifactFile], Field(description="The artifact's files, by path.")]
    base_files: Annotated[
        list[BaseFile], Field(description="Adapters: the base model's files, to tell which one was changed.")
    ] = []
    max_new_tokens: Annotated[int, Field(ge=1, description="Maximum number of tokens generated per answer.")]
    samples: Annotated[
        list[Sample],
        Field(description="Scored test rows, at most 20: those that got worse the most, then better, then others."),
    ] = []
    notes: Annotated[list[str], Field(description="How to read the scores, in sentences.")] = []
    confusion: Annotated[Confusion | None, Field(description="Classification: which classes are mistaken.")] = None
    history: Annotated[History | None, Field(description="The figures of training by step.")] = None
    record: Annotated[RunRecord | None, Field(description="Attempts, GPU time and price, from the operator.")] = None
    image: Annotated[str | None, Field(description="The trainer image of finish.")] = None
    scored_rows: Annotated[ScoredRows | None, Field(description="Which rows were scored.")] = None
    search: Annotated[SearchRecord | None, Field(description="The trials of a search before the training.")] = None
    judge: Annotated[JudgeRecord | None, Field(description="How evaluation.judge was asked.")] = None
