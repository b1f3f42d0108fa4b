"""A source: where a model or data of a run comes from, and what its pods need in order to read it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from hone.api.dataset import ImagePath
from hone.contract.runconfig import Download, Merge, UpstreamArtifact
from hone.core.downloads import SecretKey
from hone.core.observed import Observed, Ref
from hone.core.ownership import belongs_to
from hone.core.pods import Trouble
from hone.core.podspec import ImageMount, Mount

REMEDY = "create it, or name another"
RESERVED = "ClaimReserved"
"""Reason of a claim that must not be used: only another spec can resolve that."""


@dataclass(frozen=True)
class Dependency:
    """An object that the spec names, or that contains a model named in the spec.

    Attributes:
        field: path of the field that names it.
        ref: the object.
        key: the key that a ConfigMap must have.
        remedy: what to do if it is missing.
        is_written: whether pods write to it. A claim that Hone created for another resource is refused then: it has an
            artifact that is served or read, or checkpoints.
    """

    field: str
    ref: Ref
    key: str | None = None
    remedy: str = REMEDY
    is_written: bool = False

    def missing(self, observed: Observed, namespace: str) -> Trouble | None:
        """What is missing, or must not be used, with the field and what to do; None if there is nothing wrong."""
        ref, live = self.ref, observed.get(self.ref)
        if live is None:
            path = self.field + (".name" if self.key else "")
            message = f"{path}: namespace {namespace!r} has no {ref.kind} {ref.name!r}; {self.remedy}"
            return Trouble(f"{ref.kind}NotFound", message)
        if self.is_written and (owner := belongs_to(live)):
            message = f"{self.field}: {ref.kind} {ref.name!r} belongs to {owner}, and the pods of this job would write"
            return Trouble(RESERVED, f"{message} to it; name a claim that you created, or remove the field")
        keys = {**(live.get("data") or {}), **(live.get("binaryData") or {})}
        if self.key is not None and self.key not in keys:
            present = ", ".join(sorted(keys)[:8]) or "none"
            message = f"{self.field}.key: ConfigMap {ref.name!r} has no key {self.key!r}; its keys: {present}"
            return Trouble("KeyNotFound", message)
        return None


class PinnedImage(NamedTuple):
    """An image that pods mount.

    Attributes:
        field: path of the field of the spec with its reference.
        reference: the image with its digest.
    """

    field: str
    reference: str


@dataclass(frozen=True)
class Source:
    """A model or data that a run reads.

    Attributes:
        path: where the pods find it.
        mounts: what they mount for it, read-only.
        env: variables that they need to read it.
        secrets: variables that prepare gets from Secrets, by name.
        dependencies: the objects that must exist before they can.
        materialize: what prepare has to write to the workspace before `path` exists.
        artifacts: artifacts of other jobs in it, which prepare compares with their digests.
        image: the image that it is in.
        prepare_only: whether prepare alone reads the original; later steps read what prepare has written.
    """

    path: str
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, SecretKey] = field(default_factory=dict)
    dependencies: tuple[Dependency, ...] = ()
    materialize: tuple[Merge | Download, ...] = ()
    prepare_only: bool = False
    artifacts: tuple[UpstreamArtifact, ...] = ()
    image: PinnedImage | None = None


def in_image(image: ImagePath, field: str, directory: str, prepare_only: bool = False) -> Source:
    """A model or data in an image, whose file system is mounted at a directory."""
    return Source(
        path=f"{directory}/{image.path}" if image.path else directory,
        mounts=(ImageMount(image.reference, directory),),
        prepare_only=prepare_only,
        image=PinnedImage(f"{field}.image.reference", image.reference),
    )
