"""Types that both resources share: conditions, quantities, storage and the settings of a pod."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from hone.contract.base import Model

QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
DNS_LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"

Quantity = Annotated[
    str,
    # The field comes first: behind the validator its pattern would not reach the schema.
    Field(max_length=32, pattern=QUANTITY_PATTERN, json_schema_extra={"x-kubernetes-int-or-string": True}),
    BeforeValidator(str),
]
"""A Kubernetes quantity, such as 500m, 4 or 20Gi."""
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_SUBDOMAIN_PATTERN)]
LabelKey = Annotated[str, Field(min_length=1, max_length=317)]
LabelValue = Annotated[str, Field(max_length=63)]
AnnotationValue = Annotated[str, Field(max_length=4096)]
Text = Annotated[str, Field(max_length=1024)]
Time = Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})]
Digest = Annotated[str, Field(max_length=128)]


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Model):
    """An observation about the resource, in the form of Kubernetes' metav1.Condition."""

    type: Annotated[str, Field(min_length=1, max_length=316, description="Name of the condition.")]
    status: Annotated[ConditionStatus, Field(description="True, False or Unknown.")]
    reason: Annotated[str, Field(min_length=1, max_length=1024, description="Why, in one CamelCase word.")]
    message: Annotated[str, Field(max_length=32768, description="Why, for people.")] = ""
    last_transition_time: Annotated[Time, Field(description="When the status last changed.")]
    observed_generation: Annotated[
        int | None, Field(ge=0, description="Generation of the spec that this was observed for.")
    ] = None


class AccessMode(StrEnum):
    """How a volume may be mounted."""

    READ_WRITE_ONCE = "ReadWriteOnce"
    READ_WRITE_MANY = "ReadWriteMany"
    READ_WRITE_ONCE_POD = "ReadWriteOncePod"


class ResourceRequirements(Model):
    """What a container asks for and may use at most."""

    requests: Annotated[
        dict[Annotated[str, Field(max_length=253)], Quantity] | None,
        Field(max_length=16, description="What the scheduler reserves; default: the limits."),
    ] = None
    limits: Annotated[
        dict[Annotated[str, Field(max_length=253)], Quantity] | None,
        Field(max_length=16, description="What the container may use at most."),
    ] = None


class SecretKey(Model):
    """One key of a Secret of the namespace. The kubelet reads it; the operator may not."""

    name: Annotated[ObjectName, Field(description="Name of the Secret.")]
    key: Annotated[
        str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="Key of the data.")
    ]
    optional: Annotated[
        bool | None, Field(description="Start without the variable where Secret or key is missing; default: wait.")
    ] = None


class EnvSource(Model):
    """Where an environment variable's value comes from."""

    secret_key_ref: Annotated[SecretKey, Field(description="A key of a Secret.")]


class EnvVar(Model):
    """An environment variable with a plain value, or one from a Secret."""

    name: Annotated[
        str,
        Field(
            min_length=1, max_length=253, pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$", description="Name of the variable."
        ),
    ]
    value: Annotated[str | None, Field(max_length=4096, description="Its value; default: empty.")] = None
    value_from: Annotated[EnvSource | None, Field(description="A Secret that holds its value; instead of value.")] = (
        None
    )


class Toleration(Model):
    """A taint that the pod may run on, as in a pod's spec."""

    key: Annotated[str | None, Field(max_length=317, description="Key of the taint; absent: every key.")] = None
    operator: Annotated[
        str | None, Field(pattern="^(Exists|Equal)$", max_length=16, description="Equal (default) or Exists.")
    ] = None
    value: Annotated[str | None, Field(max_length=63, description="Value of the taint.")] = None
    effect: Annotated[
        str | None,
        Field(
            pattern="^(NoSchedule|PreferNoSchedule|NoExecute)$",
            max_length=32,
            description="Effect of the taint; absent: every effect.",
        ),
    ] = None
    toleration_seconds: Annotated[int | None, Field(ge=0, description="Seconds that a NoExecute taint is borne.")] = (
        None
    )


class LocalReference(Model):
    """The name of an object in the same namespace."""

    name: Annotated[ObjectName, Field(description="Name of the object.")]


class PodSettings(Model):
    """What a user may set on the pods beside their resources. Merged into the pod; Hone's own labels win."""

    labels: Annotated[dict[LabelKey, LabelValue] | None, Field(max_length=32, description="Labels to add.")] = None
    annotations: Annotated[
        dict[LabelKey, AnnotationValue] | None, Field(max_length=32, description="Annotations to add.")
    ] = None
    env: Annotated[list[EnvVar] | None, Field(max_length=64, description="Environment variables to add.")] = None
    node_selector: Annotated[
        dict[LabelKey, LabelValue] | None, Field(max_length=32, description="Labels that the node must have.")
    ] = None
    tolerations: Annotated[
        list[Toleration] | None, Field(max_length=16, description="Taints that the pod may run on.")
    ] = None
    affinity: Annotated[
        dict[str, Any] | None,
        Field(
            description="Affinity as in a pod's spec.",
            json_schema_extra={"x-kubernetes-preserve-unknown-fields": True, "maxProperties": 3},
        ),
    ] = None
    priority_class_name: Annotated[ObjectName | None, Field(description="PriorityClass of the pods.")] = None
    scheduler_name: Annotated[ObjectName | None, Field(description="Scheduler of the pods.")] = None
    image_pull_secrets: Annotated[
        list[LocalReference] | None, Field(max_length=8, description="Secrets to pull the image with.")
    ] = None
