"""What labels and taints of nodes say: which nodes a pod may run on."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hone.api.meta import PodSettings, Toleration
from hone.core.observed import Node, Object
from hone.core.quantity import as_int


def node_of(obj: Object) -> Node:
    """What is kept of a Node of Kubernetes."""
    spec, allocatable = obj.get("spec") or {}, (obj.get("status") or {}).get("allocatable") or {}
    return Node(
        name=obj["metadata"]["name"],
        labels=obj["metadata"].get("labels") or {},
        taints=tuple(
            (taint["key"], taint.get("value") or "", taint["effect"])
            for taint in spec.get("taints") or ()
            if taint["effect"] in ("NoSchedule", "NoExecute")
        ),
        allocatable={name: _count(amount) for name, amount in allocatable.items() if "/" in name},
        is_cordoned=bool(spec.get("unschedulable")),
    )


def _count(amount: object) -> int:
    """How many of a resource there are; 0 where that is written as no device plugin does, such as 1e3."""
    try:
        return as_int(str(amount))
    except ValueError:
        return 0


def may_run(node: Node, pod: PodSettings | None, resource: str, count: int) -> bool:
    """Whether a pod that requests so many of a resource may run on the node, were it empty.

    The resource's own taint is no obstacle: the admission plugin ExtendedResourceToleration adds its toleration.
    """
    if node.is_cordoned or node.allocatable.get(resource, 0) < count:
        return False
    selector, tolerations = (pod and pod.node_selector) or {}, (pod and pod.tolerations) or ()
    return (
        all(node.labels.get(key) == value for key, value in selector.items())
        and all(key == resource or _tolerates(tolerations, key, *rest) for key, *rest in node.taints)
        and _has_affinity(node, (pod and pod.affinity) or {})
    )


def _tolerates(tolerations: Sequence[Toleration], key: str, value: str, effect: str) -> bool:
    return any(
        each.effect in (None, effect)
        and each.key in (None, "", key)
        and (each.operator == "Exists" or (each.key == key and (each.value or "") == value))
        for each in tolerations
    )


def _has_affinity(node: Node, affinity: Mapping[str, Any]) -> bool:
    """Whether the node meets one of the terms that a pod requires of nodes, or the pod requires none.

    The API server checks a pod's affinity when the pod is created; here, what has another form is met by no node.
    """
    try:
        required = (affinity.get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution")
        return not required or any(_meets(node, term) for term in required["nodeSelectorTerms"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def _meets(node: Node, term: Mapping[str, Any]) -> bool:
    named = [*(term.get("matchExpressions") or ())]
    fields = [*(term.get("matchFields") or ())]
    return (
        bool(named or fields)
        and all(_OPERATORS[each["operator"]](node.labels.get(each["key"]), each.get("values") or []) for each in named)
        and all(_OPERATORS[each["operator"]](node.name, each.get("values") or []) for each in fields)
    )


_OPERATORS: Mapping[str, Callable[[str | None, list[str]], bool]] = {
    "In": lambda label, values: label in values,
    "NotIn": lambda label, values: label not in values,
    "Exists": lambda label, values: label is not None,
    "DoesNotExist": lambda label, values: label is None,
    "Gt": lambda label, values: label is not None and int(label) > int(values[0]),
    "Lt": lambda label, values: label is not None and int(label) < int(values[0]),
}
