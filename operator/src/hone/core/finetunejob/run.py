"""A FineTuneJob as decisions see it: its identity, its spec with the defaults filled in, the names of its children."""

import json
from dataclasses import dataclass
from enum import StrEnum

from hone.api.finetunejob import Compute, FineTuneJobSpec, Output, Prepare, Retry, Workspace
from hone.api.finetunejob_status import FoundModel
from hone.contract.settings import Checkpoint, Evaluation, Hyperparameters, Method
from hone.core import names
from hone.core.observed import Object, Ref
from hone.core.settings import Settings
from hone.core.subject import Subject


class Step(StrEnum):
    """The steps of a run, in their order."""

    PREPARE = "prepare"
    TRAIN = "train"
    FINISH = "finish"


@dataclass(frozen=True)
class Run(Subject):
    """A FineTuneJob whose spec the code accepts.

    Attributes:
        resource: the object as it was read.
        spec: its spec.
        settings: the operator's.
    """

    spec: FineTuneJobSpec
    settings: Settings

    @classmethod
    def of(cls, resource: Object, settings: Settings) -> "Run":
        """Read the resource.

        Raises:
            pydantic.ValidationError: the spec passed its CRD but not the types.
        """
        return cls(resource, FineTuneJobSpec.from_dict(resource["spec"]), settings)

    @property
    def compute(self) -> Compute:
        """The trainer pods."""
        return self.spec.compute or Compute()

    @property
    def processes_per_node(self) -> int:
        """Ranks per trainer pod: one per GPU; on the CPU as many as asked for, else one."""
        return self.compute.gpus_per_node or self.compute.processes_per_node or 1

    @property
    def method(self) -> Method:
        """Which weights are trained."""
        return self.spec.method or Method()

    @property
    def hyperparameters(self) -> Hyperparameters:
        """The user's choices about training."""
        return self.spec.hyperparameters or Hyperparameters()

    @property
    def checkpoint(self) -> Checkpoint:
        """How often training saves itself."""
        return self.spec.checkpoint or Checkpoint()

    @property
    def evaluation(self) -> Evaluation:
        """How the result is scored."""
        return self.spec.evaluation or Evaluation()

    @property
    def retry(self) -> Retry:
        """How often a step is tried again."""
        return self.spec.retry or Retry()

    @property
    def prepare(self) -> Prepare:
        """The prepare pod."""
        return self.spec.prepare or Prepare()

    @property
    def workspace(self) -> Workspace:
        """Scratch space."""
        return self.spec.workspace or Workspace()

    @property
    def output(self) -> Output:
        """Where the artifact goes."""
        return self.spec.output or Output()

    @property
    def found(self) -> dict[str, FoundModel]:
        """The models of other jobs, as status tells of them; what is made for the run is made from nothing newer."""
        told = (self.resource.get("status") or {}).get("models") or {}
        return {name: FoundModel.from_dict(model) for name, model in told.items()}

    @property
    def image(self) -> str:
        """The trainer image."""
        return self.compute.image or self.settings.trainer_image

    @property
    def spec_digest(self) -> str:
        """Digest of the spec as it was written, but for what may change at any time."""
        spec = {key: value for key, value in self.resource["spec"].items() if key != "suspend"}
        return names.digest(json.dumps(spec, sort_keys=True), length=16)

    @property
    def base_name(self) -> str:
        """The name that all children's names begin with."""
        return names.unique(self.name, self.uid)

    @property
    def workspace_claim(self) -> str:
        """The claim with checkpoints and prepared data."""
        return self.workspace.claim_name or f"{self.base_name}-workspace"

    @property
    def output_claim(self) -> str:
        """The artifact's claim."""
        return f"{self.base_name}-output"

    @property
    def service(self) -> str:
        """The headless Service in which the ranks find pod 0."""
        return self.base_name

    def job(self, step: Step | str, attempt: int) -> str:
        """The Job of an attempt."""
        return f"{self.base_name}-{step}-{attempt}"

    def job_ref(self, step: Step | str, attempt: int) -> Ref:
        """The same, to be read."""
        return Ref("batch/v1", "Job", self.job(step, attempt))
