"""A cluster in memory: executes Plans as the API server would, and plays the Job controller and the kubelet by hand."""

import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hone.contract.results import StepResult
from hone.core.children import ref_of
from hone.core.kinds import KINDS
from hone.core.names import UID_LABEL
from hone.core.network import NetworkPeers
from hone.core.observed import Node, Observed, Pod, ProgressReading, Ref
from hone.core.plan import Apply, Event, Plan
from hone.core.settings import Settings
from hone.core.subject import Subject
from hone.core.times import rfc3339
from tests.unit.core import make


class Crash(Exception):
    """The operator ends here."""


class Exists(Exception):
    """409: an object of that name is there, so the rest of the Plan is not done."""


@dataclass
class FakeCluster:
    """One resource and everything around it."""

    resource: dict[str, Any]
    objects: dict[Ref, dict[str, Any]] = field(default_factory=dict)
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    created: list[Ref] = field(default_factory=list)
    written: dict[Ref, dict[str, Any]] = field(default_factory=dict)
    """Every object that was ever created, as it was then."""
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    settings: Settings = field(default_factory=lambda: Settings(network_policies=NetworkPeers()))
    """The operator's; as the chart installs it, with NetworkPolicies."""
    progress: ProgressReading | None = None
    writes: int = 0
    crash_at: int | None = None
    serial: int = 0
    gets: int = 0
    nodes: tuple[Node, ...] | None = None
    """Those with GPUs; None: the operator may not list them."""
    refuse: tuple[str, ...] = ()
    """Kinds that the API server refuses to create or apply (403)."""
    owners: dict[tuple[Ref, str], set[str]] = field(default_factory=dict)
    """uids of the owners that each field manager has applied to an object; without a name, whoever created it."""

    def add(self, *objects: dict[str, Any]) -> "FakeCluster":
        """Put objects into the cluster."""
        for obj in objects:
            self.objects[ref_of(obj)] = obj
        return self

    # The operator.

    def subject(self) -> Subject:
        """The resource as decisions see it."""
        return KINDS[self.resource["kind"]].subject(copy.deepcopy(self.resource), self.settings)

    def observe(self, subject: Subject) -> Observed:
        """Read as the runtime does."""
        kind = KINDS[self.resource["kind"]]
        fetched: dict[Ref, dict[str, Any] | None] = {}
        while new := set(kind.refs(subject, fetched)) - set(fetched):
            self.gets += len(new)
            fetched |= {ref: copy.deepcopy(self.objects.get(ref)) for ref in new}
        uid = self.resource["metadata"]["uid"]
        pods = [pod for pod in self.pods.values() if pod["metadata"]["labels"].get(UID_LABEL) == uid]
        nodes = self.nodes if kind.reads_nodes(subject) else None
        peers = None
        if kind.reads_peers(subject):
            peers = tuple(obj for ref, obj in self.objects.items() if ref.kind == kind.name)
        return Observed(fetched, tuple(Pod(copy.deepcopy(pod)) for pod in pods), self.progress, nodes, peers)

    def reconcile(self) -> Plan:
        """One reconcile, executed."""
        kind = KINDS[self.resource["kind"]]
        subject = self.subject()
        plan = kind.reconcile(subject, self.observe(subject), self.now)
        try:
            self.execute(plan)
        except Exists:
            return Plan(requeue_after=0)
        return plan

    def converge(self, limit: int = 10) -> Plan:
        """Reconcile until nothing changes any more."""
        for _ in range(limit):
            before = self.writes
            plan = self.reconcile()
            if self.writes == before and plan.requeue_after != 0:
                return plan
        raise AssertionError("the reconcile never comes to rest")

    def execute(self, plan: Plan) -> None:
        """Do what a Plan says, in its order."""
        for obj in plan.create:
            self._write()
            if obj["kind"] in self.refuse:
                self._refused(plan, obj["kind"])
                return
            if ref_of(obj) in self.objects and obj["kind"] == "Secret":
                continue
            if ref_of(obj) in self.objects:
                raise Exists
            self._store(obj)
        for apply in plan.apply:
            self._write()
            if apply.body["kind"] in self.refuse:
                self._refused(plan, apply.body["kind"])
                return
            self._apply(apply)
        for delete in plan.delete:
            self._write()
            live = self.objects.get(delete.ref)
            if live and live["metadata"]["uid"] == delete.uid:
                self.remove_job(delete.ref) if delete.ref.kind == "Job" else self.objects.pop(delete.ref)
        if plan.status is not None:
            self._write()
            self.resource["status"] = copy.deepcopy(plan.status)
        self.events += plan.events

    def _refused(self, plan: Plan, what: str) -> None:
        kind = KINDS[self.resource["kind"]]
        self.execute(kind.refused(self.resource, plan, what, "exceeded quota", self.now))

    def _write(self) -> None:
        self.writes += 1
        if self.writes == self.crash_at:
            raise Crash

    def _store(self, obj: dict[str, Any]) -> None:
        self.serial += 1
        stored = copy.deepcopy(obj)
        stored["metadata"] |= {"uid": f"made-{self.serial}", "creationTimestamp": rfc3339(self.now), "generation": 1}
        self.objects[ref_of(obj)] = stored
        self.created.append(ref_of(obj))
        self.written[ref_of(obj)] = copy.deepcopy(stored)

    def _apply(self, apply: Apply) -> None:
        body, live = apply.body, self.objects.get(ref_of(apply.body))
        if live is None:
            self._store(body)
            return
        merged = _merge(live, body)
        if body["kind"] == "Service":
            merged["spec"]["selector"] = body["spec"]["selector"]  # Atomic: it is replaced as a whole.
        # What a manager applied before and leaves out now is given up.
        owners = {owner["uid"] for owner in body["metadata"].get("ownerReferences") or []}
        ref, manager = ref_of(body), apply.field_manager
        self.owners.setdefault((ref, ""), {owner["uid"] for owner in live["metadata"].get("ownerReferences") or []})
        dropped = self.owners.get((ref, manager), set()) - owners
        self.owners[ref, manager] = owners
        for (other, _), held in self.owners.items():
            dropped -= held if other == ref else set()
        if owners := merged["metadata"].get("ownerReferences"):
            merged["metadata"]["ownerReferences"] = [owner for owner in owners if owner["uid"] not in dropped]
        if merged.get("spec") != live.get("spec"):
            merged["metadata"]["generation"] = live["metadata"].get("generation", 1) + 1
        self.objects[ref_of(body)] = merged

    # The rest of the cluster.

    def later(self, seconds: float) -> "FakeCluster":
        """Let time pass."""
        self.now += timedelta(seconds=seconds)
        return self

    def remove_job(self, ref: Ref) -> None:
        """Delete a Job in the background: its pods get SIGTERM."""
        self.objects.pop(ref)
        for pod in self.pods_of(ref.name):
            if pod["status"]["phase"] in ("Pending", "Running"):
                pod["metadata"]["deletionTimestamp"] = rfc3339(self.now)

    def drop_deleted_pods(self) -> None:
        """The grace of deleted pods is over."""
        self.pods = {name: pod for name, pod in self.pods.items() if "deletionTimestamp" not in pod["metadata"]}

    def job(self) -> dict[str, Any]:
        """The newest Job."""
        name = [ref for ref in self.created if ref.kind == "Job" and ref in self.objects][-1]
        return self.objects[name]

    def jobs(self) -> list[str]:
        """The Jobs that were ever created, without their common prefix."""
        return ["-".join(ref.name.split("-")[-2:]) for ref in self.created if ref.kind == "Job"]

    def pods_of(self, job: str) -> list[dict[str, Any]]:
        """A Job's pods."""
        label = "batch.kubernetes.io/job-name"
        return [pod for pod in self.pods.values() if pod["metadata"]["labels"].get(label) == job]

    def start(self, state: dict[str, Any] | None = None, phase: str = "Running", **status: Any) -> None:
        """The newest Job's pods appear, running unless said otherwise."""
        job = self.job()
        name = job["metadata"]["name"]
        for index in range(job["spec"]["completions"]):
            template = job["spec"]["template"]
            labels = {**template["metadata"]["labels"], "batch.kubernetes.io/job-name": name}
            labels["batch.kubernetes.io/job-completion-index"] = str(index)
            running = {"running": {"startedAt": rfc3339(self.now)}}
            self.pods[f"{name}-{index}"] = {
                "metadata": {
                    "name": f"{name}-{index}",
                    "uid": f"pod-{name}-{index}",
                    "labels": labels,
                    "ownerReferences": [
                        {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": name, "controller": True}
                    ],
                },
                "spec": {"nodeName": "node-1"},
                "status": {
                    "phase": phase,
                    "podIP": f"10.0.0.{index + 1}",
                    "containerStatuses": [{"state": running if state is None else state}],
                    **status,
                },
            }

    def complete(self, result: StepResult | str) -> None:
        """The newest Job's pods end well."""
        self._end(0, result)
        self.job()["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}

    def fail(self, code: int, result: StepResult | str = "", reason: str = "") -> None:
        """The newest Job's pods end badly."""
        self._end(code, result, reason)
        name = self.job()["metadata"]["name"]
        message = f"Container c for pod {make.NAMESPACE}/{name}-0 failed with exit code {code} matching FailJob rule"
        condition = {"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": message}
        self.job()["status"] = {"conditions": [condition]}

    def _end(self, code: int, result: StepResult | str, reason: str = "") -> None:
        name = self.job()["metadata"]["name"]
        if not self.pods_of(name):
            self.start()
        for pod in self.pods_of(name):
            state = make.exited(code, result, reason)
            state["terminated"]["startedAt"] = rfc3339(self.now - timedelta(seconds=60))
            state["terminated"]["finishedAt"] = rfc3339(self.now)
            pod["status"] |= {"phase": "Succeeded" if code == 0 else "Failed", "containerStatuses": [{"state": state}]}

    # Short forms.

    @property
    def status(self) -> dict[str, Any]:
        """The resource's status."""
        return dict(self.resource.get("status") or {})

    def condition(self, kind: str) -> tuple[str, str]:
        """Status and reason of a condition."""
        condition = next(c for c in self.status["conditions"] if c["type"] == kind)
        return condition["status"], condition["reason"]

    def message(self, kind: str) -> str:
        """Message of a condition."""
        return str(next(c for c in self.status["conditions"] if c["type"] == kind)["message"])

    def edit(self, **spec: Any) -> "FakeCluster":
        """The author edits the spec."""
        self.resource["spec"] |= spec
        self.resource["metadata"]["generation"] += 1
        return self

    def reasons(self) -> list[str]:
        """Reasons of the Events so far."""
        return [event.reason for event in self.events]


def _merge(old: Any, new: Any) -> Any:
    if isinstance(old, list) and isinstance(new, list) and all("uid" in item for item in (*old, *new)):
        return list({item["uid"]: item for item in (*old, *new)}.values())
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: _merge(old.get(key), value) for key, value in new.items()}}
    return copy.deepcopy(new)


def finetunejob_cluster(resource: dict[str, Any] | None = None, **spec: Any) -> FakeCluster:
    """A FineTuneJob whose dependencies exist."""
    cluster = FakeCluster(resource or make.finetunejob(**spec))
    return cluster.add(make.claim("base-models"), make.config_map("reviews", **{"train.jsonl": "{}"}))
