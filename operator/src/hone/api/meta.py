"""Types that both resources share: conditions, quantities, storage and pod settings."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from hone.contract.base import Model
from hone.contract.objects import LocalReference, ObjectName

QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
DNS_LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

Quantity = Annotated[
    str,
    # Field comes first: after the validator its pattern would not be part of the schema.
    Field(max_length=32, pattern=QUANTITY_PATTERN, json_schema_extra={"x-kubernetes-int-or-string": True}),
    BeforeValidator(str),
]
"""A Kubernetes quantity, such as 500m, 4 or 20Gi."""
LabelKey = Annotated[str, Field(min_length=1, max_length=317)]
LabelValue = Annotated[str, Field(max_length=63)]
AnnotationValue = Annotated[str, Field(max_length=4096)]
Text = Annotated[str, Field(max_length=1024)]
Time = Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})]
Digest = Annotated[str, Field(max_length=128)]


class Enforcement(StrEnum):
    """Whether the NetworkPolicy of a resource's pods has an effect."""

    ENFORCED = "Enforced"
    NOT_KNOWN = "NotKnownToBeEnforced"


NetworkPolicyStatus = Annotated[
    Enforcement | None,
    Field(
        description="Whether the NetworkPolicy of the pods has an effect. Only the cluster's network plugin knows: "
        "Enforced if the administrator said so at the installation of Hone, else NotKnownToBeEnforced. Absent if the "
        "newest pods have no NetworkPolicy.",
    ),
]


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Model):
    """A condition of the resource, in the form of Kubernetes' metav1.Condition."""

    type: Annotated[str, Field(min_length=1, max_length=316, description="Type of the condition.")]
    status: Annotated[ConditionStatus, Field(description="True, False or Unknown.")]
    reason: Annotated[
        str, Field(min_length=1, max_length=1024, description="Reason for the status, as one CamelCase word.")
    ]
    message: Annotated[str, Field(max_length=32768, description="Human-readable details.")] = ""
    last_transition_time: Annotated[Time, Field(description="Time at which the status last changed.")]
    observed_generation: Annotated[
        int | None, Field(ge=0, description="Generation of the spec for which the condition was observed.")
    ] = None


class AccessMode(StrEnum):
    """How a volume may be mounted."""

    READ_WRITE_ONCE = "ReadWriteOnce"
    READ_WRITE_MANY = "ReadWriteMany"
    READ_WRITE_ONCE_POD = "ReadWriteOncePod"


class ResourceRequirements(Model):
    """Resources that a container requests, and their limits."""

    requests: Annotated[
        dict[Annotated[str, Field(max_length=253)], Quantity] | None,
        Field(max_length=16, description="Resources that the scheduler reserves. Default: the limits."),
    ] = None
    limits: Annotated[
        dict[Annotated[str, Field(max_length=253)], Quantity] | None,
        Field(max_length=16, description="Maximum resources that the container may use."),
    ] = None


class SecretKey(Model):
    """One key of a Secret in the same namespace. The kubelet reads it; the operator has no access to it."""

    name: Annotated[ObjectName, Field(description="Name of the Secret.")]
    key: Annotated[
        str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="Key in the Secret.")
    ]
    optional: Annotated[
        bool | None,
        Field(
            description="Whether the pod starts without the variable if Secret or key does not exist. Default: false, "
            "which makes the pod wait."
        ),
    ] = None


class EnvSource(Model):
    """Where an environment variable's value comes from."""

    secret_key_ref: Annotated[SecretKey, Field(description="Key of a Secret with the value.")]


class EnvVar(Model):
    """An environment variable with a plain value, or one from a Secret."""

    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=253,
            pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$",
            description="Name of the variable. Names that Hone, torchrun or a loader depends on are reserved: HONE_*, "
            "LD_*, MASTER_*, PET_*, TORCHELASTIC_*, RANK, WORLD_SIZE, JOB_COMPLETION_INDEX, PYTHONPATH and their like.",
        ),
    ]
    value: Annotated[str | None, Field(max_length=4096, description="Value of the variable. Default: empty.")] = None
    value_from: Annotated[
        EnvSource | None, Field(description="Secret with the value. Cannot be set together with value.")
    ] = None


class Toleration(Model):
    """A taint that the pod tolerates, as in a pod's spec."""

    key: Annotated[str | None, Field(max_length=317, description="Key of the taint. Default: matches all keys.")] = None
    operator: Annotated[
        str | None,
        Field(
            pattern="^(Exists|Equal)$",
            max_length=16,
            description="Exists, or Equal to compare the value. Default: Equal.",
        ),
    ] = None
    value: Annotated[str | None, Field(max_length=63, description="Value of the taint.")] = None
    effect: Annotated[
        str | None,
        Field(
            pattern="^(NoSchedule|PreferNoSchedule|NoExecute)$",
            max_length=32,
            description="Effect of the taint. Default: matches all effects.",
        ),
    ] = None
    toleration_seconds: Annotated[
        int | None, Field(ge=0, description="Seconds for which a NoExecute taint is tolerated. Default: no limit.")
    ] = None


class PodSettings(Model):
    """Further settings of the pods, merged into their specs. Labels set by Hone take precedence."""

    labels: Annotated[
        dict[LabelKey, LabelValue] | None,
        Field(max_length=32, description="Labels to add. Labels set by Hone take precedence."),
    ] = None
    annotations: Annotated[
        dict[LabelKey, AnnotationValue] | None, Field(max_length=32, description="Annotations to add.")
    ] = None
    env: Annotated[list[EnvVar] | None, Field(max_length=64, description="Environment variables to add.")] = None
    node_selector: Annotated[
        dict[LabelKey, LabelValue] | None,
        Field(max_length=32, description="Labels that a node must have to run the pods."),
    ] = None
    tolerations: Annotated[
        list[Toleration] | None, Field(max_length=16, description="Taints that the pods tolerate.")
    ] = None
    affinity: Annotated[
        dict[str, Any] | None,
        Field(
            description="Scheduling constraints, as in a pod's spec.",
            json_schema_extra={"x-kubernetes-preserve-unknown-fields": True, "maxProperties": 3},
        ),
    ] = None
    priority_class_name: Annotated[ObjectName | None, Field(description="PriorityClass of the pods.")] = None
    scheduler_name: Annotated[
        ObjectName | None, Field(description="Scheduler of the pods. Default: the cluster's default scheduler.")
    ] = None
    image_pull_secrets: Annotated[
        list[LocalReference] | None, Field(max_length=8, description="Secrets with credentials to pull the images.")
    ] = None
