"""What the user must have made before pods can be: claims and ConfigMaps that the spec names."""

from dataclasses import dataclass

from hone.core.finetunejob import rewards
from hone.core.finetunejob.models import READS, models
from hone.core.finetunejob.run import Run
from hone.core.finetunejob.runconfig import sources
from hone.core.observed import Observed, Ref
from hone.core.ownership import claim_ref
from hone.core.pods import Trouble


@dataclass(frozen=True)
class Dependency:
    """An object that the spec names.

    Attributes:
        field: path of the field that names it.
        ref: the object.
        key: the key that a ConfigMap must have.
    """

    field: str
    ref: Ref
    key: str | None = None


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
            found.append(Dependency(f"{field}.claim.name", claim_ref(source.claim.name)))
        elif source.config_map:
            ref = Ref("v1", "ConfigMap", source.config_map.name)
            found.append(Dependency(f"{field}.configMap", ref, source.config_map.key))
    for name, model in run.found.items():
        claims = [claim for claim in (model.claim, model.base_claim) if claim]
        found += [Dependency(f"status.models.{name}", claim_ref(claim)) for claim in claims]
    for field, key in rewards.sources(run).items():
        found.append(Dependency(field, Ref("v1", "ConfigMap", key.name), key.key))
    if run.workspace.claim_name:
        found.append(Dependency("spec.workspace.claimName", claim_ref(run.workspace.claim_name)))
    return found


def missing(run: Run, observed: Observed) -> Trouble | None:
    """What the first missing one is, with the field that names it and what to do; None where all are there."""
    for dependency in dependencies(run):
        ref, found = dependency.ref, observed.get(dependency.ref)
        field = dependency.field + (".name" if dependency.key else "")
        if found is None:
            return Trouble(
                f"{ref.kind}NotFound",
                f"{field}: namespace {run.namespace!r} has no {ref.kind} {ref.name!r}; make it, or name another",
            )
        keys = {**(found.get("data") or {}), **(found.get("binaryData") or {})}
        if dependency.key is not None and dependency.key not in keys:
            has = ", ".join(sorted(keys)[:8]) or "none"
            return Trouble(
                "KeyNotFound",
                f"{dependency.field}.key: ConfigMap {ref.name!r} has no key {dependency.key!r}; it has: {has}",
            )
    return None
