"""The rules on settings of pods: what Kubernetes would refuse in a Job or a Deployment, refused in the spec."""

from collections.abc import Iterator

from hone.contract.expressions import Compare, EveryKey, EveryValue, Expression, IsSet, Matches, Value
from hone.contract.rules.rule import Rule

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
LABEL_KEY = rf"({_DOMAIN}/)?{_NAME}"
"""A key of a label, with or without a domain, as Kubernetes defines it."""
LABEL_VALUE = rf"({_NAME})?"
"""A value of a label; it may be empty."""
ANNOTATION_KEY = LABEL_KEY.replace("a-z0-9", "A-Za-z0-9").replace("A-ZA-Z", "A-Z")
"""As a label's, but the domain may have capitals."""

_NAMES = "at most 63 letters, digits, '-', '_' and '.' that begin and end with a letter or digit"
_BAD_KEY = f"has a key that is no qualified name: {_NAMES}, after a domain and '/' or without"
_KEY_REMEDY = "Use keys such as team or example.com/team."
_BAD_VALUE = f"has a value that no label can have: it must be empty, or {_NAMES}"


def pod_settings(place: str) -> Iterator[Rule]:
    """The rules on the settings of pods at a place."""
    for field in ("labels", "nodeSelector"):
        yield _rule(
            f"{place}.{field}",
            place,
            IsSet(field) & ~EveryKey(Value(field), LABEL_KEY),
            _BAD_KEY,
            _KEY_REMEDY,
        )
        yield _rule(
            f"{place}.{field}",
            place,
            IsSet(field) & ~EveryValue(Value(field), LABEL_VALUE),
            _BAD_VALUE,
            "Use values such as nlp or team-1.",
        )
    yield _rule(
        f"{place}.annotations",
        place,
        IsSet("annotations") & ~EveryKey(Value("annotations"), ANNOTATION_KEY),
        _BAD_KEY,
        _KEY_REMEDY,
    )
    yield from _toleration(f"{place}.tolerations[]")


def _toleration(place: str) -> Iterator[Rule]:
    """The rules on one toleration."""
    exists = Compare(Value("operator"), "==", "Exists")
    has_key, has_value = Compare(Value("key"), "!=", ""), Compare(Value("value"), "!=", "")
    yield _rule(
        f"{place}.tolerationSeconds",
        place,
        IsSet("tolerationSeconds") & ~Compare(Value("effect"), "==", "NoExecute"),
        "is allowed only with effect NoExecute: other taints do not end pods that run",
        "Set effect to NoExecute, or remove it.",
    )
    yield _rule(
        f"{place}.operator",
        place,
        ~has_key & ~exists,
        "must be Exists in a toleration without a key",
        "Set key, or set operator to Exists to tolerate every taint.",
    )
    yield _rule(
        f"{place}.key",
        place,
        has_key & ~Matches(Value("key"), LABEL_KEY),
        "is no qualified name: no taint has such a key",
        "Use the key of the taint, such as nvidia.com/gpu: see spec.taints of a node.",
    )
    yield _rule(
        f"{place}.value",
        place,
        exists & has_value,
        "is not allowed with operator Exists, which matches every value",
        "Remove it, or set operator to Equal.",
    )
    yield _rule(
        f"{place}.value",
        place,
        ~exists & has_value & ~Matches(Value("value"), LABEL_VALUE),
        "is no value that a taint can have",
        "Use the value of the taint: see spec.taints of a node.",
    )


def _rule(path: str, scope: str, applies_if: Expression, message: str, remedy: str) -> Rule:
    return Rule(path, applies_if, message, remedy, scope, spec_only=True)
