"""A ModelDeployment as decisions see it: its identity, its spec with the defaults, the names of its children."""

from functools import cached_property

from hone.api.access import Access
from hone.api.modeldeployment import KIND, ModelDeploymentSpec, Role, Runtime
from hone.api.rollout import Strategy
from hone.core import names
from hone.core.network import APPLIED_POLICY
from hone.core.observed import Ref
from hone.core.subject import Subject

STEP = "serve"
INSPECT = "inspect"
"""The step of the pod that reads what a published model is."""
ANALYZE = "analyze"
"""The step of the pod that asks both revisions of a rollout the same prompts."""
VERIFY = "verify"
"""The init container that checks the artifact of a job."""
FETCH = "fetch"
"""The init container that downloads and checks a published model."""
QUALIFIERS: dict[Role, tuple[str, ...]] = {Role.STABLE: (), Role.CANDIDATE: ("candidate",)}
"""Suffixes of a role's names and labels. The stable one has none: selectors of existing Deployments cannot change."""
HTTP_PORT = 8000
"""The port that vLLM listens on."""
SERVICE_PORT = 80
STARTUP_SECONDS = 600
BYTES_PER_SECOND = 50_000_000
"""Read speed of a slow volume, from which the startup deadline follows."""


class Server(Subject):
    """A ModelDeployment."""

    @cached_property
    def spec(self) -> ModelDeploymentSpec:
        """The spec, parsed once.

        Raises:
            pydantic.ValidationError: the CRD accepts the spec, but the types do not.
        """
        return ModelDeploymentSpec.from_dict(self.resource["spec"])

    @property
    def job(self) -> str | None:
        """The FineTuneJob that is followed; None if the model was published."""
        return self.spec.model.job_ref.name if self.spec.model.job_ref else None

    @property
    def served_name(self) -> str:
        """The model name that clients send in the field 'model'."""
        return self.spec.served_name or self.name

    @property
    def runtime(self) -> Runtime:
        """The vLLM server."""
        return self.spec.runtime or Runtime()

    @property
    def access(self) -> Access:
        """Whom the server answers."""
        return self.spec.access or Access()

    @property
    def image(self) -> str:
        """The server's image."""
        default = self.settings.server_image if self.spec.gpus else self.settings.server_cpu_image
        return self.runtime.image or default

    @property
    def strategy(self) -> Strategy:
        """How a new revision replaces the old one."""
        return self.spec.rollout.strategy if self.spec.rollout else Strategy.ROLLING_UPDATE

    @property
    def has_candidates(self) -> bool:
        """Whether there may be objects of a candidate: by the spec, or left from the spec before, as status says."""
        roles = (self.resource.get("status") or {}).get("revisions") or []
        left = any(entry.get("role") == Role.CANDIDATE for entry in roles)
        return left or (self.fault is None and self.strategy == Strategy.CANARY)

    def deployment(self, role: Role) -> Ref:
        """The Deployment of a role. Its name depends on the uid, since its selector does and can never change."""
        return Ref("apps/v1", "Deployment", names.unique(self.name, self.uid, *QUALIFIERS[role]))

    @property
    def service(self) -> Ref:
        """The Service. Its name depends only on the resource's name, so that the address outlives the resource."""
        return self.service_of(Role.STABLE)

    def service_of(self, role: Role) -> Ref:
        """The Service of a role; that of the stable one is the endpoint."""
        return Ref("v1", "Service", names.unique(self.name, KIND, self.name, *QUALIFIERS[role]))

    @property
    def network_policy(self) -> Ref:
        """The NetworkPolicy of the servers' pods."""
        return APPLIED_POLICY.ref(names.unique(self.name, self.uid))

    @property
    def budget(self) -> Ref:
        """The PodDisruptionBudget of the servers' pods."""
        return Ref("policy/v1", "PodDisruptionBudget", names.unique(self.name, self.uid))

    @property
    def url(self) -> str:
        """The endpoint's address in the cluster; OpenAI's paths are below /v1, classes and scores at /classify."""
        return f"http://{self.service.name}.{self.namespace}.svc"

    def selector(self, role: Role) -> dict[str, str]:
        """The labels that select a role's pods: the step's value is another for each role.

        Not the label `hone.dev/role`: a Deployment's selector never changes, and pods that an earlier release rendered
        lack it, so a Service that selects by it would find none of them.
        """
        return {names.UID_LABEL: self.uid, names.STEP_LABEL: "-".join((STEP, *QUALIFIERS[role]))}

    def startup_seconds(self, weights_bytes: int) -> int:
        """Seconds within which a server must be ready."""
        return self.spec.start_deadline_seconds or STARTUP_SECONDS + weights_bytes // BYTES_PER_SECOND
