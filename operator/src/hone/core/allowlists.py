"""What the administrator lets users ask for in their pods: images, priority classes, tolerations and the like.

The chart can have the API server refuse the rest at apply. This half holds on clusters without that policy, for
resources that are older than it, and when the lists change.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hone.api.meta import PodSettings
from hone.contract.rules.places import not_of_the_cluster
from hone.core.observed import Object
from hone.core.pods import Trouble
from hone.core.refusal import rule_broken

NOT_ALLOWED = "NotAllowed"
"""Reason of a resource that asks for what the administrator does not allow."""
ANY = "*"
_ALL = (ANY,)


@dataclass(frozen=True)
class AllowLists:
    """What users may ask for. An entry that ends with `*` allows every value that begins with the rest.

    Attributes:
        priority_classes: names of PriorityClasses; never those that begin with `system-`.
        tolerations: keys of taints. A toleration without a key tolerates every taint: only `*` allows it.
        annotations: names of annotations of pods.
        images: images of trainers and servers, and those that hold models and data.
        schedulers: names of schedulers.
    """

    priority_classes: tuple[str, ...] = _ALL
    tolerations: tuple[str, ...] = _ALL
    annotations: tuple[str, ...] = _ALL
    images: tuple[str, ...] = _ALL
    schedulers: tuple[str, ...] = _ALL


ANYTHING = AllowLists()
"""All that Kubernetes takes, but for the cluster's own priority classes."""


class Use(NamedTuple):
    """A value that a spec asks for.

    Attributes:
        field: path of the field.
        value: its value; empty where the field stands for all values.
        list: the field of AllowLists that must allow it.
    """

    field: str
    value: str
    list: str


def not_allowed(
    lists: AllowLists, resource: Object, place: str, settings: PodSettings | None, images: Mapping[str, str | None]
) -> Trouble | None:
    """Why the pods that a spec asks for are not allowed, or None.

    Args:
        lists: what is allowed.
        resource: the resource.
        place: path of its settings of pods.
        settings: these settings.
        images: the image that the spec names, by the path of its field.
    """
    for refusal in not_of_the_cluster(place).refusals(resource):
        return Trouble(NOT_ALLOWED, rule_broken(refusal))
    uses = [Use(field, image, "images") for field, image in images.items() if image]
    uses += _uses(settings or PodSettings(), place)
    return next((Trouble(NOT_ALLOWED, _message(use, lists)) for use in uses if not _allows(lists, use)), None)


def chart_name(name: str) -> str:
    """The name of a list in the chart's values, below `admissionPolicies.users`."""
    first, *rest = name.split("_")
    return "".join([first, *map(str.title, rest)])


def _uses(settings: PodSettings, place: str) -> Iterator[Use]:
    if settings.priority_class_name:
        yield Use(f"{place}.priorityClassName", settings.priority_class_name, "priority_classes")
    for number, toleration in enumerate(settings.tolerations or []):
        yield Use(f"{place}.tolerations[{number}].key", toleration.key or "", "tolerations")
    for name in settings.annotations or {}:
        yield Use(f"{place}.annotations", name, "annotations")
    if settings.scheduler_name:
        yield Use(f"{place}.schedulerName", settings.scheduler_name, "schedulers")


def _allows(lists: AllowLists, use: Use) -> bool:
    entries: Sequence[str] = getattr(lists, use.list)
    return any(
        use.value.startswith(entry.removesuffix(ANY)) if entry.endswith(ANY) else use.value == entry
        for entry in entries
        if use.value or entry == ANY
    )


def _message(use: Use, lists: AllowLists) -> str:
    entries: Sequence[str] = getattr(lists, use.list)
    value = repr(use.value) if use.value else "a toleration without a key, which tolerates every taint,"
    allowed = f"use one of {', '.join(entries)}" if entries else "remove it"
    name = f"admissionPolicies.users.{chart_name(use.list)}"
    return f"{use.field}: {value} is not allowed in this cluster; {allowed}, or ask an administrator to extend {name}"
