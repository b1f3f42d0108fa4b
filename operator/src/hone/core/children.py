"""Child objects: their types, their metadata, and to whom an object with a child's name belongs."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hone.core.names import OWNER_ANNOTATION, UID_LABEL, labels, owner_annotation
from hone.core.observed import Object, Ref


class Write(StrEnum):
    """How a child is written."""

    CREATE_ONCE = "CreateOnce"
    """Created if it does not exist, and never changed."""
    APPLY = "Apply"
    """Server-side applied."""


@dataclass(frozen=True)
class ChildType:
    """A type of object that one of our kinds creates.

    Attributes:
        api_version: such as `batch/v1`.
        kind: such as `Job`.
        write: how it is written.
        watched: whether its events trigger a reconcile of its owner. Not needed for objects that hardly change.
        metadata_only: whether decisions read nothing but its metadata.
        foreign: whether decisions also read objects of the type that others created.
        indexed: whether it is watched at all. Not if clusters may lack it, or the operator may not list it.
    """

    api_version: str
    kind: str
    write: Write
    watched: bool = False
    metadata_only: bool = False
    foreign: bool = False
    indexed: bool = True

    def ref(self, name: str) -> Ref:
        """The name of such an object."""
        return Ref(self.api_version, self.kind, name)


@dataclass(frozen=True)
class Child:
    """A rendered child.

    Attributes:
        object: the object.
        write: how it is written.
    """

    object: Object
    write: Write


class Standing(StrEnum):
    """To whom an object with a child's name belongs."""

    ABSENT = "Absent"
    OURS = "Ours"
    PREDECESSOR = "Predecessor"
    """It belongs to a deleted resource of the same kind and name; garbage collection is about to delete it."""
    FOREIGN = "Foreign"


def ref_of(obj: Object) -> Ref:
    """The name of an object that has its apiVersion and kind."""
    return Ref(obj["apiVersion"], obj["kind"], obj["metadata"]["name"])


def owner_reference(resource: Object, controller: bool = True) -> dict[str, Any]:
    """The owner reference that makes garbage collection delete an object with `resource`."""
    meta = resource["metadata"]
    reference = {
        "apiVersion": resource["apiVersion"],
        "kind": resource["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
    }
    return {**reference, "controller": True, "blockOwnerDeletion": True} if controller else reference


def metadata(resource: Object, name: str, step: str, owned: bool = True) -> dict[str, Any]:
    """A child's metadata: name, namespace, labels, the annotation that maps its events to us, and its owner."""
    meta = resource["metadata"]
    fields: dict[str, Any] = {
        "name": name,
        "namespace": meta["namespace"],
        "labels": labels(resource, step),
        "annotations": {OWNER_ANNOTATION: owner_annotation(resource)},
    }
    if owned:
        fields["ownerReferences"] = [owner_reference(resource)]
    return fields


def standing(resource: Object, live: Object | None) -> Standing:
    """To whom `live`, an object with the name of a child of `resource`, belongs.

    It is ours if its controller has our uid, or if it has no controller and our uid as label, as a retained claim has.
    """
    if live is None:
        return Standing.ABSENT
    meta, ours = live["metadata"], resource["metadata"]
    controller = next((owner for owner in meta.get("ownerReferences") or [] if owner.get("controller")), None)
    if controller is None:
        is_ours = (meta.get("labels") or {}).get(UID_LABEL) == ours["uid"]
        return Standing.OURS if is_ours else Standing.FOREIGN
    if controller["uid"] == ours["uid"]:
        return Standing.OURS
    same_name = (controller["kind"], controller["name"]) == (resource["kind"], ours["name"])
    return Standing.PREDECESSOR if same_name else Standing.FOREIGN
