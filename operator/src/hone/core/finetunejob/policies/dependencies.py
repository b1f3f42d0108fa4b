"""What the user must have made before pods can be: claims and ConfigMaps that the spec names."""

from collections.abc import Sequence
from dataclasses import dataclass

from hone.api.finetunejob_status import FoundModel
from hone.core.finetunejob.resources import rewards
from hone.core.finetunejob.resources.models import READS, models
from hone.core.finetunejob.resources.runconfig import sources
from hone.core.finetunejob.run import Run, Step
from hone.core.observed import Observed, Ref
from hone.core.ownership import claim_ref
from hone.core.pods import Trouble

ALL_STEPS = tuple(Step)
PREPARE_ALONE = (Step.PREPARE,)


@dataclass(frozen=True)
class Dependency:
    """An object that the spec names, or that holds a model which it names.

    Attributes:
        field: path of the field that names it.
        ref: the object.
        key: the key that a ConfigMap must have.
        steps: the steps whose pods mount it; the others go without it.
        remedy: what to do where it is missing.
    """

    field: str
    ref: Ref
    key: str | None = None
    steps: Sequence[Step] = ALL_STEPS
    remedy: str = "make it, or name another"


def dependencies(run: Run) -> list[Dependency]:
    """Everything that the spec names in its namespace."""
    found = [
        Dependency(f"{READS[name].field}.claim.name", claim_ref(source.claim.name))
        for name, source in models(run.spec).items()
        if source.claim
    ]
    for split, source in sources(run).items():
        field = f"spec.dataset.{split}"
        if source.claim:
            found.append(Dependency(f"{field}.claim.name", claim_ref(source.claim.name), steps=PREPARE_ALONE))
        elif source.config_map:
            ref = Ref("v1", "ConfigMap", source.config_map.name)
            found.append(Dependency(f"{field}.configMap", ref, source.config_map.key, PREPARE_ALONE))
    for name, model in run.found.items():
        found += _of_another_job(f"{READS[name].field}.jobRef.name", model)
    for field, key in rewards.sources(run).items():
        found.append(Dependency(field, Ref("v1", "ConfigMap", key.name), key.key, PREPARE_ALONE))
    if run.workspace.claim_name:
        found.append(Dependency("spec.workspace.claimName", claim_ref(run.workspace.claim_name)))
    return found


def _of_another_job(field: str, model: FoundModel) -> list[Dependency]:
    """The claims of a model that another job made; an adapter's and its base's are read until they are merged."""
    anew = f"have FineTuneJob {model.job!r} make its model anew, then delete this job and apply it again"
    if not model.base_claim:
        return [Dependency(field, claim_ref(model.claim), remedy=anew)]
    base = f"make it again with the same model on it: FineTuneJob {model.job!r} made an adapter of that"
    return [
        Dependency(field, claim_ref(model.claim), steps=PREPARE_ALONE, remedy=anew),
        Dependency(field, claim_ref(model.base_claim), steps=PREPARE_ALONE, remedy=base),
    ]


def missing(run: Run, observed: Observed, step: Step) -> Trouble | None:
    """The first that a step lacks, with the field that names it and what to do; None where all are there."""
    for dependency in (each for each in dependencies(run) if step in each.steps):
        ref, found = dependency.ref, observed.get(dependency.ref)
        field = dependency.field + (".name" if dependency.key else "")
        if found is None:
            return Trouble(
                f"{ref.kind}NotFound",
                f"{field}: namespace {run.namespace!r} has no {ref.kind} {ref.name!r}; {dependency.remedy}",
            )
        keys = {**(found.get("data") or {}), **(found.get("binaryData") or {})}
        if dependency.key is not None and dependency.key not in keys:
            has = ", ".join(sorted(keys)[:8]) or "none"
            return Trouble(
                "KeyNotFound",
                f"{dependency.field}.key: ConfigMap {ref.name!r} has no key {dependency.key!r}; it has: {has}",
            )
    return None
