"""The jobs whose models a job reads: it waits for them, and owns their claims for as long as it reads them.

Until its first pod exists, a job tracks the jobs it depends on; if one is re-created, it waits again. Their models are
then recorded in status, and stay: another job under the name changes nothing of a run that has begun.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hone.api import API_VERSION
from hone.api.finetunejob import KIND, FineTuneJobSpec
from hone.api.finetunejob_status import FineTuneJobStatus, FoundModel
from hone.contract.objectives import Objective
from hone.core.conditions import TRUE, find, is_true
from hone.core.finetunejob.run import Run
from hone.core.finetunejob.sources.models import READS, models
from hone.core.kind import Fetched
from hone.core.observed import Object, Observed, Ref
from hone.core.ownership import claim_ref, give_back, is_usable, take
from hone.core.plan import Apply
from hone.core.pods import Trouble

WAITING = "WaitingForJob"
GONE = "ArtifactNotFound"
STALLED = ("JobFailed", "JobStalled", "JobCycle", "JobUnfit")
"""Reasons that do not resolve by waiting: the user has to fix the other job, or name another one."""
MAX_CHAIN = 16
"""Jobs that are read in search of a cycle: a chain of thousands would cost each of its jobs a read of all others."""
REASONS = (WAITING, GONE, "JobNotFound", *STALLED)


def job_refs(spec: FineTuneJobSpec) -> dict[str, Ref]:
    """The jobs that a spec names, by the names of `READS`."""
    return {name: _ref(source.job_ref.name) for name, source in models(spec).items() if source.job_ref}


def refs(run: Run, fetched: Fetched) -> set[Ref]:
    """What to read while the job waits: the jobs, those that they wait for, and the claims of their models.

    Of a long chain only the nearest `MAX_CHAIN` jobs are read.
    """
    direct = set(job_refs(run.spec).values())
    refs, new = set(direct), set(direct)
    while new:
        new = {ref for job in new for ref in _waits_for(fetched.get(job))} - refs
        new = set(sorted(new)[: max(0, MAX_CHAIN - len(refs))])
        refs |= new
    for job in (fetched.get(ref) for ref in direct):
        if job is not None and (model := _model_of(job)):
            refs |= {claim_ref(claim) for claim in (model.claim, model.base_claim) if claim}
    return refs


def is_unfinished(run: Run, fetched: Fetched) -> bool:
    """Whether one of the jobs whose models are read exists, and has no model yet: `follow` has a trouble then."""
    jobs = [fetched.get(ref) for ref in job_refs(run.spec).values()]
    return any(
        job is not None and "deletionTimestamp" not in job["metadata"] and _model_of(job) is None for job in jobs
    )


def held(models: Mapping[str, FoundModel]) -> set[str]:
    """The claims of other jobs that are read."""
    return {model.claim for model in models.values()}


@dataclass(frozen=True)
class Upstream:
    """The models of other jobs, as far as they exist.

    Attributes:
        models: those that exist, by the names of `READS`.
        trouble: why the first of the others does not exist.
        apply: owner references to add to the claims of these models.
        ready: whether all models exist and are recorded in status, and we own their claims.
    """

    models: dict[str, FoundModel]
    trouble: Trouble | None = None
    apply: tuple[Apply, ...] = ()
    ready: bool = False


def held_refs(run: Run) -> set[Ref]:
    """The claims of other jobs that are recorded in status; they must be read before they can be given back."""
    return {claim_ref(claim) for claim in held(run.upstream_models)}


def follow(run: Run, observed: Observed, known: dict[str, FoundModel] | None) -> Upstream:
    """Find the models of other jobs, and own their claims.

    In this order: an owner reference that no status records would never be given back.

    Args:
        run: the run.
        observed: what was read.
        known: the models that the run has started with; None as long as it has not.
    """
    models, trouble = _resolve(run, observed) if known is None else (known, None)
    if trouble:
        return Upstream(models, trouble)
    claims = {claim: observed.get(claim_ref(claim)) for claim in sorted(held(models))}
    taken = [apply for claim in claims.values() if claim is not None and (apply := take(run, claim))]
    if models != run.upstream_models:
        return Upstream(models)
    return Upstream(models, apply=tuple(taken), ready=not taken)


def give_back_dropped(run: Run, observed: Observed, models: Mapping[str, FoundModel], finished: bool) -> list[Apply]:
    """What ends our ownership of the claims that are no longer read; of all of them once the job has ended.

    Args:
        run: the run.
        observed: what was read.
        models: the models that are still read.
        finished: whether the job has ended.
    """
    dropped = held(run.upstream_models) - (set() if finished else held(models))
    claims = (observed.objects.get(claim_ref(claim)) for claim in sorted(dropped))
    return [apply for claim in claims if (apply := give_back(run, claim))]


def may_end(run: Run, observed: Observed) -> bool:
    """Whether the claims to give back were read: a job is not reconciled again once it has ended."""
    return held_refs(run) <= set(observed.objects)


def _resolve(run: Run, observed: Observed) -> tuple[dict[str, FoundModel], Trouble | None]:
    """The models of other jobs that exist, and why the first of the others does not."""
    there: dict[str, FoundModel] = {}
    first: Trouble | None = None
    for name, ref in job_refs(run.spec).items():
        model, trouble = _model_or_trouble(run, observed, name, ref)
        if model:
            there[name] = model
        first = first or trouble
    return there, first


def _model_or_trouble(run: Run, observed: Observed, name: str, ref: Ref) -> tuple[FoundModel | None, Trouble | None]:
    """A model of another job, or why it does not exist."""
    field = f"{READS[name].field}.jobRef.name"
    if trouble := _waits_in_vain(run, observed, field, ref):
        return None, trouble
    job = observed.get(ref)
    if job is None or "deletionTimestamp" in job["metadata"]:
        if owned := _owned(run, observed, name, ref):
            return owned, None
        message = f"{field}: namespace {run.namespace!r} has no FineTuneJob {ref.name!r}; create it, or name another"
        return None, Trouble("JobNotFound", message)
    objective = _objective(job)
    if objective and not READS[name].fits(objective, run.spec.objective):
        message = f"{field}: FineTuneJob {ref.name!r} has objective {objective}, {READS[name].unfit}"
        return None, Trouble("JobUnfit", message)
    model = _model_of(job)
    if model is None:
        return None, _unfinished(
            field, ref.name, FineTuneJobStatus.from_dict(job.get("status") or {}), _is_cut(observed)
        )
    trouble = _claim_gone(observed, field, model)
    return (None, trouble) if trouble else (model, None)


def _waits_in_vain(run: Run, observed: Observed, field: str, ref: Ref) -> Trouble | None:
    """Why waiting for the job would never end: it is this one, or one that waits for this one."""
    if ref.name == run.name:
        message = f"{field}: a FineTuneJob cannot wait for itself; name the job that produces the model"
        return Trouble("JobCycle", message)
    if cycle := _cycle(run, observed, ref):
        message = f"{field}: these FineTuneJobs wait for each other: {' → '.join(cycle)}; change one of them"
        return Trouble("JobCycle", message)
    return None


def _claim_gone(observed: Observed, field: str, model: FoundModel) -> Trouble | None:
    """Which of the model's claims is gone, or None."""
    if not is_usable(observed.get(claim_ref(model.claim))):
        where = f"the model of FineTuneJob {model.job!r} was on PersistentVolumeClaim {model.claim!r}, which is gone"
        return Trouble(GONE, f"{field}: {where}; delete that job and apply it again, or name another")
    if model.base_claim and not is_usable(observed.get(claim_ref(model.base_claim))):
        where = f"FineTuneJob {model.job!r} tuned the model on PersistentVolumeClaim {model.base_claim!r}"
        return Trouble(GONE, f"{field}: {where}, which is gone; create that claim again with the same model on it")
    return None


def _owned(run: Run, observed: Observed, name: str, ref: Ref) -> FoundModel | None:
    """The model of a deleted job if we still own its claim: giving the claim back could delete it."""
    model = run.upstream_models.get(name)
    claim = observed.get(claim_ref(model.claim)) if model and model.job == ref.name else None
    return model if claim and is_usable(claim) and take(run, claim) is None else None


def _objective(job: Object) -> Objective | None:
    """A job's objective; None if this release does not know it. The spec of a started job does not change."""
    named = job["spec"].get("objective", Objective.SFT)
    return Objective(named) if named in list(Objective) else None


def _is_cut(observed: Observed) -> bool:
    """Whether some of the jobs that are waited for, through others, were not read."""
    jobs = [job for ref, job in observed.objects.items() if ref.kind == KIND]
    return any(ref not in observed.objects for job in jobs for ref in _waits_for(job))


def _unfinished(field: str, name: str, status: FineTuneJobStatus, is_cut: bool) -> Trouble:
    """Why a job has no model yet; `is_cut`: whether it waits for more jobs than were read."""
    again = "delete it and apply it again" if status.start_time else "fix it, or delete it and apply it again"
    remedy = f"{again}; this job then continues by itself"
    if is_true(status.conditions, "Failed"):
        failed = find(status.conditions, "Failed")
        return Trouble("JobFailed", f"FineTuneJob {name!r} failed: {failed.message if failed else ''}; {remedy}")
    stalled = find(status.conditions, "Stalled")
    if stalled and is_true(status.conditions, "Stalled"):
        return Trouble("JobStalled", f"FineTuneJob {name!r} cannot continue: {stalled.message}")
    percent = f", {status.progress.percent} %" if status.progress else ""
    words = f"; it waits for more than {MAX_CHAIN} others: whether they wait for each other was not checked"
    where = f"{status.phase or 'Pending'}{percent}"
    return Trouble(WAITING, f"waiting for FineTuneJob {name!r} ({where}){words if is_cut else ''}")


def _model_of(job: Object) -> FoundModel | None:
    """The model of a job that is complete."""
    if not _has(job, "Complete"):
        return None  # Without being parsed: so it is as long as anybody waits for it.
    artifact = FineTuneJobStatus.from_dict(job["status"]).artifact
    if artifact is None:
        return None
    adapter = artifact.kind == "Adapter"
    return FoundModel(
        job=job["metadata"]["name"],
        job_uid=job["metadata"]["uid"],
        claim=artifact.claim,
        digest=artifact.digest,
        base_claim=artifact.model_claim if adapter else None,
        base_path=artifact.model_path if adapter else None,
        base_digest=artifact.base_digest if adapter else None,
    )


def _cycle(run: Run, observed: Observed, start: Ref) -> tuple[str, ...] | None:
    """The names of jobs that wait for each other, from ours back to ours; None if there is no such cycle."""
    # Each job is visited once: the number of paths would grow exponentially where jobs share their sources.
    paths: dict[Ref, tuple[str, ...]] = {start: (run.name, start.name)}
    new = [start]
    for ref in new:
        for follows in sorted(_waits_for(observed.objects.get(ref))):
            if follows.name == run.name:
                return (*paths[ref], follows.name)
            if follows not in paths:
                paths[follows] = (*paths[ref], follows.name)
                new.append(follows)
    return None


def _waits_for(job: Object | None) -> set[Ref]:
    """The jobs that a job still waits for: one that has begun, or ended, waits for none.

    It is not parsed: each reconcile of a job that waits looks at `MAX_CHAIN` others several times.
    """
    if job is None:
        return set()
    if (job.get("status") or {}).get("preparedSpec") is not None or _has(job, "Finished"):
        return set()
    return {_ref(name) for path in _PATHS if (name := _job_name(job, path))}


def _has(job: Object, condition: str) -> bool:
    """Whether a condition of a job is True."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any((each["type"], each["status"]) == (condition, TRUE) for each in conditions)


_PATHS = tuple((*reads.field.split("."), "jobRef", "name") for reads in READS.values())


def _job_name(job: Object, path: tuple[str, ...]) -> str | None:
    """The name in the jobRef of one of a job's models, or None."""
    value: Any = job
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value if isinstance(value, str) else None


def _ref(name: str) -> Ref:
    return Ref(API_VERSION, KIND, name)
