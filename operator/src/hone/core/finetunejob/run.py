"""A FineTuneJob as decisions see it: its identity, its spec with the defaults filled in, the names of its children."""

import json
from functools import cached_property
from typing import Any

from hone.api.finetunejob import NOT_DIGESTED, Compute, FineTuneJobSpec, Prepare, Retry, Workspace
from hone.api.finetunejob_status import FineTuneJobStatus, FoundModel, GpuStatus
from hone.api.generation import Generation
from hone.api.output import PUBLISH_FIELDS, Output
from hone.contract.plan import Plan
from hone.contract.runconfig import CACHE
from hone.contract.settings import Checkpoint, Evaluation, GenerationEngine, Hyperparameters, Method
from hone.core import names
from hone.core.observed import Ref
from hone.core.quantity import as_int
from hone.core.subject import Subject

PREPARE, TRAIN, FINISH, PUBLISH = "prepare", "train", "finish", "publish"
"""Names of the steps; what each of them does is in `steps`."""
WORKSPACE_DIRECTORY = "/mnt/workspace"
"""Where every pod of the run mounts its scratch space."""


class Run(Subject):
    """A FineTuneJob."""

    @cached_property
    def spec(self) -> FineTuneJobSpec:
        """The spec, parsed once.

        Raises:
            pydantic.ValidationError: the CRD accepts the spec, but the types do not.
        """
        return FineTuneJobSpec.from_dict(self.resource["spec"])

    @property
    def compute(self) -> Compute:
        """The trainer pods."""
        return self.spec.compute or Compute()

    @property
    def processes_per_node(self) -> int:
        """Ranks per trainer pod: one per GPU; on the CPU as many as requested, by default one."""
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
        """How often training saves a checkpoint."""
        return self.spec.checkpoint or Checkpoint()

    @property
    def evaluation(self) -> Evaluation:
        """How the result is scored."""
        return self.spec.evaluation or Evaluation()

    @property
    def retry(self) -> Retry:
        """How often a step is retried."""
        return self.spec.retry or Retry()

    @property
    def generation(self) -> Generation | None:
        """How answers are generated in training; None: by the training processes."""
        return self.spec.generation

    @property
    def generation_gpus(self) -> int:
        """GPUs that a vLLM server in each trainer pod has, if there is one."""
        if self.generation is None:
            return 0
        requested = self.generation.gpus_per_node
        return min(1, self.compute.gpus_per_node) if requested is None else requested

    @property
    def has_answer_server(self) -> bool:
        """Whether trainer pods have a vLLM server, by the plan in status."""
        return self.generation is not None and self.stored_plan.get("generationEngine") == GenerationEngine.VLLM

    @property
    def training_gpus(self) -> int:
        """GPUs of a training attempt: of the ranks, and of the vLLM servers next to them."""
        served = self.generation_gpus if self.has_answer_server else 0
        return self.compute.nodes * (self.compute.gpus_per_node + served)

    @property
    def prepare(self) -> Prepare:
        """The prepare pod."""
        return self.spec.prepare or Prepare()

    @property
    def workspace(self) -> Workspace:
        """Scratch space."""
        return self.spec.workspace or Workspace()

    @property
    def cache_claim(self) -> str | None:
        """The claim for downloads: that of the spec, or the administrator's as recorded in status; None: the workspace.

        The run's objects are rendered only from these.
        """
        recorded: str | None = (self.resource.get("status") or {}).get("cacheClaim")
        claim = self.spec.cache.claim_name if self.spec.cache else recorded
        return None if claim == self.workspace.claim_name else claim

    @property
    def download_directory(self) -> str:
        """Where pods find what prepare downloads."""
        return CACHE if self.cache_claim else WORKSPACE_DIRECTORY

    @property
    def output(self) -> Output:
        """The claim for the artifact."""
        return self.spec.output or Output()

    @cached_property
    def old_status(self) -> FineTuneJobStatus:
        """The status as it was read, parsed once; to be read only."""
        return FineTuneJobStatus.from_dict(self.resource.get("status") or {})

    @cached_property
    def upstream_models(self) -> dict[str, FoundModel]:
        """The models of other jobs as recorded in status; the run's objects are rendered only from these."""
        models = (self.resource.get("status") or {}).get("models") or {}
        return {name: FoundModel.from_dict(model) for name, model in models.items()}

    @cached_property
    def gpu(self) -> GpuStatus | None:
        """The GPUs of the trainer pods as recorded in status; the RunConfig is rendered only from these."""
        recorded = (self.resource.get("status") or {}).get("gpu")
        return GpuStatus.from_dict(recorded) if recorded and self.compute.gpus_per_node else None

    @property
    def stored_plan(self) -> dict[str, Any]:
        """The plan in status, empty before there is one."""
        plan: dict[str, Any] = (self.resource.get("status") or {}).get("plan") or {}
        return plan

    @property
    def gpu_memory_bytes(self) -> int | None:
        """Memory of a GPU by the spec, else by the labels of nodes; None: there is none, or it is unknown."""
        memory = self.compute.gpu_memory or (self.gpu and self.gpu.memory)
        return as_int(memory) if memory and self.compute.gpus_per_node else None

    @property
    def scoring_gpus(self) -> int:
        """GPUs of the finish pod, by the plan in status: at least one if training pods have any, at most as many."""
        return min(max(1, self.stored_plan.get("scoringGpus") or 1), self.compute.gpus_per_node)

    def planned(self, plan: Plan | None) -> "Run":
        """This run with the plan of this reconcile, which the stored status may not have yet."""
        if plan is None:
            return self
        status = {**(self.resource.get("status") or {}), "plan": plan.to_dict()}
        run = Run({**self.resource, "status": status}, self.settings)
        # A reconcile parses the spec once.
        vars(run)["spec"] = self.spec
        return run

    @property
    def host_memory_bytes(self) -> int:
        """Host memory that a trainer pod needs for offloaded state, by the plan in status; 0: the default suffices."""
        return self.stored_plan.get("hostMemoryBytes") or 0

    @property
    def image(self) -> str:
        """The trainer image."""
        return self.compute.image or self.settings.trainer_image

    @cached_property
    def spec_digest(self) -> str:
        """Digest of the spec as it was written, without suspend, queue, gate, budget and what publish alone reads.

        Earlier releases counted an empty output as well. A run that they have begun keeps the digest that it has.
        """
        spec = {key: value for key, value in self.resource["spec"].items() if key not in NOT_DIGESTED}
        output = spec.pop("output", None) or {}
        if claim := {key: value for key, value in output.items() if key not in PUBLISH_FIELDS}:
            return _digest({**spec, "output": claim})
        status, earlier = self.resource.get("status") or {}, _digest({**spec, "output": {}})
        return earlier if earlier in (status.get("preparedSpec"), status.get("scoredSpec")) else _digest(spec)

    @cached_property
    def publish_digest(self) -> str | None:
        """Digest of what the spec says about the artifact's copy; None if there is to be none."""
        output = self.resource["spec"].get("output") or {}
        if not output.get("uri"):
            return None
        fields = {key: output[key] for key in PUBLISH_FIELDS if key in output}
        return _digest(fields)

    @cached_property
    def base_name(self) -> str:
        """The name that all children's names begin with."""
        return names.unique(self.name, self.uid)

    @property
    def workspace_claim(self) -> str:
        """The claim with checkpoints and prepared data."""
        return self.workspace.claim_name or f"{self.base_name}-workspace"

    @property
    def directory(self) -> str:
        """The run's own directory on the workspace, which other jobs may share."""
        return f"{self.namespace}/{self.name}/{self.uid}"

    @property
    def output_claim(self) -> str:
        """The artifact's claim."""
        return f"{self.base_name}-output"

    @property
    def service(self) -> str:
        """The headless Service through which the ranks find pod 0."""
        return self.base_name

    @property
    def network_policy(self) -> str:
        """The NetworkPolicy of the run's pods."""
        return self.base_name

    @property
    def download_policy(self) -> str:
        """The NetworkPolicy of the prepare pod where it downloads models."""
        return f"{self.base_name}-download"

    @property
    def publish_policy(self) -> str:
        """The NetworkPolicy of the publish pod."""
        return f"{self.base_name}-publish"

    @property
    def judge_policy(self) -> str:
        """The NetworkPolicy of the finish pod where a judge compares answers."""
        return f"{self.base_name}-judge"

    @property
    def network_policies(self) -> tuple[str, ...]:
        """All of them, whether they are needed or not."""
        return self.network_policy, self.download_policy, self.publish_policy, self.judge_policy

    def job(self, step: str, attempt: int) -> str:
        """The Job of an attempt."""
        return f"{self.base_name}-{step}-{attempt}"

    def job_ref(self, step: str, attempt: int) -> Ref:
        """The Ref of that Job."""
        return Ref("batch/v1", "Job", self.job(step, attempt))


def _digest(fields: dict[str, Any]) -> str:
    return names.digest(json.dumps(fields, sort_keys=True), length=16)
