"""Rules on objects that occur in several places of a spec, such as a model or an environment variable."""

from hone.contract.expressions import Compare, Count, HasPart, IsSet, Matches, OneOf, Value
from hone.contract.rules.rule import Rule

MODEL_SOURCES = ("spec.model", "spec.teacher", "spec.reward.model")
DATA_SOURCES = ("spec.dataset.train",)
MIXED_SOURCES = ("spec.dataset.train.sources[]",)
HELD_OUT = ("spec.dataset.validation", "spec.dataset.test")
RESERVED_PREFIXES = ("HONE_", "LD_", "MASTER_", "PET_", "TORCHELASTIC_")
RESERVED_NAMES = (
    "GCONV_PATH",
    "GROUP_RANK",
    "GROUP_WORLD_SIZE",
    "JOB_COMPLETION_INDEX",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "PYTHONBREAKPOINT",
    "PYTHONEXECUTABLE",
    "PYTHONHOME",
    "PYTHONINSPECT",
    "PYTHONPATH",
    "PYTHONPLATLIBDIR",
    "PYTHONPYCACHEPREFIX",
    "PYTHONSTARTUP",
    "PYTHONUSERBASE",
    "PYTHONWARNINGS",
    "RANK",
    "ROLE_NAME",
    "ROLE_RANK",
    "ROLE_WORLD_SIZE",
    "WORLD_SIZE",
)
"""Variables that Hone, torchrun and Kubernetes set, and those by which the loaders of libraries and of Python run or
read what they name. Their readers repeat a value that they do not understand, which may come from a Secret."""
REMOTE_ROWS = (*DATA_SOURCES, *MIXED_SOURCES, *HELD_OUT)
BENCHMARKS = "spec.evaluation.benchmarks[]"
CLAIM_PATHS = tuple(f"{place}.claim" for place in (*MODEL_SOURCES, *REMOTE_ROWS, BENCHMARKS))
IMAGES = tuple(f"{place}.image" for place in (*MODEL_SOURCES, *REMOTE_ROWS))
PINNED = r"[^@]+@sha256:[0-9a-f]{64}"
"""An image with its digest."""


def exactly_one(place: str, *fields: str) -> Rule:
    """The rule that an object has exactly one of some fields. The RunConfig has only the path of that one."""
    names = f"{', '.join(fields[:-1])} and {fields[-1]}"
    return Rule(
        path=place,
        scope=place,
        applies_if=Compare(Count(fields), "!=", 1),
        message=f"must have exactly one of {names}",
        remedy="Set one of them, and remove the others.",
        spec_only=True,
    )


def only_with(place: str, field: str, other: str) -> Rule:
    """The rule that a field of an object has a meaning only if another one is set."""
    return Rule(
        path=f"{place}.{field}",
        scope=place,
        applies_if=IsSet(field) & ~IsSet(other),
        message=f"is allowed only with {other}",
        remedy=f"Set {other}, or remove it.",
        spec_only=True,
    )


def only_at(place: str, field: str, scheme: str) -> Rule:
    """The rule that a field of an object has a meaning only for one kind of uri."""
    return Rule(
        path=f"{place}.{field}",
        scope=place,
        applies_if=IsSet(field) & ~Matches(Value("uri"), f"{scheme}.*"),
        message=f"is allowed only with a uri that begins with {scheme}",
        remedy="Change the uri, or remove it.",
        spec_only=True,
    )


def digest_of_a_file(place: str) -> Rule:
    """The rule that a file of any server has a digest: nothing else says what is in it."""
    return Rule(
        path=f"{place}.sha256",
        scope=place,
        applies_if=Matches(Value("uri"), "https://.*") & ~IsSet("sha256"),
        message="is required with https://",
        remedy="Set it to the digest that sha256sum prints for the file.",
        spec_only=True,
    )


def no_login(place: str) -> Rule:
    """The rule that a file of any server needs no credentials: there are no usual keys for these."""
    return Rule(
        path=f"{place}.credentialsSecretRef",
        scope=place,
        applies_if=IsSet("credentialsSecretRef") & ~Matches(Value("uri"), "(hf|s3)://.*"),
        message="is allowed only with a uri that begins with hf:// or s3://",
        remedy="Change the uri, or remove it.",
        spec_only=True,
    )


def inside_the_volume(place: str) -> Rule:
    """The rule that a path does not lead out of the volume."""
    return Rule(
        path=f"{place}.path",
        scope=place,
        applies_if=HasPart(Value("path"), "/", ".."),
        message="must not contain '..'",
        remedy="Write the path from the root of the volume.",
        spec_only=True,
    )


def pinned(place: str) -> Rule:
    """The rule that an image has a digest: what a tag names can change between two pods of a job."""
    return Rule(
        path=f"{place}.reference",
        scope=place,
        applies_if=~Matches(Value("reference"), PINNED),
        message="must end with @sha256: and the 64 hexadecimal digits of the image's digest",
        remedy="Add the digest that the registry shows for the tag, as `crane digest` prints it.",
        spec_only=True,
    )


def one_value(place: str) -> Rule:
    """The rule that an environment variable has at most one source of its value."""
    return Rule(
        path=f"{place}.valueFrom",
        scope=place,
        applies_if=IsSet("value") & IsSet("valueFrom"),
        message="cannot be set together with value",
        remedy="Remove value or valueFrom.",
        spec_only=True,
    )


_DOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
EXTENDED_RESOURCE = rf"{_DOMAIN}/[A-Za-z0-9]([-_.A-Za-z0-9]{{0,61}}[A-Za-z0-9])?"
"""A resource name with a domain, such as nvidia.com/gpu."""
NATIVE_RESOURCE = r"requests\..*|.*kubernetes\.io/.*"
"""Names with a domain that are Kubernetes' own, not a device's."""


def device(path: str) -> Rule:
    """The rule that a field names an extended resource: Kubernetes would take `memory` for bytes of memory."""
    value = Value(path)
    return Rule(
        path=f"spec.{path}",
        applies_if=IsSet(path) & (~Matches(value, EXTENDED_RESOURCE) | Matches(value, NATIVE_RESOURCE)),
        message="must be an extended resource, whose name has a domain, such as nvidia.com/gpu",
        remedy="Use the name under which the nodes offer their GPUs: see status.allocatable of a node.",
        spec_only=True,
    )


def not_of_the_cluster(place: str) -> Rule:
    """The rule that pods do not have a priority class of the cluster's own pods, which would displace all others."""
    return Rule(
        path=f"{place}.priorityClassName",
        scope=place,
        applies_if=Matches(Value("priorityClassName"), "system-.*"),
        message="must not begin with 'system-': these classes are for pods that the cluster itself needs",
        remedy="Use another PriorityClass, or remove it.",
        spec_only=True,
    )


def not_reserved(place: str) -> Rule:
    """The rule that an environment variable is none that the pod's own programs depend on."""
    name = Value("name")
    prefixes = ", ".join(f"{prefix}*" for prefix in RESERVED_PREFIXES)
    return Rule(
        path=f"{place}.name",
        scope=place,
        applies_if=Matches(name, f"({'|'.join(RESERVED_PREFIXES)}).*") | OneOf(name, RESERVED_NAMES),
        message=f"is reserved ({prefixes}, PYTHONPATH and others): Hone, torchrun or the loader sets or obeys it",
        remedy="Use another name.",
        spec_only=True,
    )
