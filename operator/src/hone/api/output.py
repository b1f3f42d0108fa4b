"""Where a FineTuneJob's tuned model is stored: a claim, and a copy of it outside of the cluster."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from hone.api.meta import AccessMode, Quantity
from hone.contract.base import Model
from hone.contract.objects import LocalReference, ObjectName
from hone.contract.stores import PORT, S3Store

_BUCKET = r"[a-z0-9][-.a-z0-9]{1,61}[a-z0-9]"
_PART = r"[A-Za-z0-9_][-A-Za-z0-9._]*"
_REGISTRY = rf"[A-Za-z0-9][-A-Za-z0-9.]*(:{PORT})?"
_LOWER = r"[a-z0-9]+([._-]+[a-z0-9]+)*"
URI = (
    rf"^(s3://{_BUCKET}(/{_PART})+|hf://[A-Za-z0-9][-A-Za-z0-9._]*/[A-Za-z0-9][-A-Za-z0-9._]*|"
    rf"oci://{_REGISTRY}(/{_LOWER})+:[A-Za-z0-9_][-A-Za-z0-9._]{{0,127}})$"
)
"""Places that publish can write to."""


class MergePolicy(StrEnum):
    """Whether an adapter is merged with its base."""

    AUTO = "Auto"
    ALWAYS = "Always"
    NEVER = "Never"


class Output(Model):
    """The claim that the tuned model is written to. It is deleted with the job and the deployments that serve it."""

    size: Annotated[Quantity | None, Field(description="Size of the claim. Default: 20Gi.")] = None
    storage_class_name: Annotated[
        ObjectName | None, Field(description="StorageClass of the claim. Default: the cluster's default.")
    ] = None
    access_modes: Annotated[
        list[AccessMode] | None,
        Field(
            min_length=1,
            max_length=3,
            description="Access modes of the claim. Default: ReadWriteOnce, with which servers and the publish pod "
            "must share one node. With ReadWriteMany they need not.",
        ),
    ] = None
    retain: Annotated[
        bool, Field(description="Whether to retain the claim when the job and its deployments are deleted.")
    ] = False
    merge: Annotated[
        MergePolicy,
        Field(
            description="Whether to merge an adapter with its base model into a whole model. Auto merges if the base "
            "model comes from another job, since deleting that job may delete it. Adapters of {has_head}, and adapters "
            "on experts, are always merged."
        ),
    ] = MergePolicy.AUTO
    uri: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=512,
            pattern=URI,
            description="Where to publish a copy of the tuned model: s3://bucket/prefix, hf://organization/name or "
            "oci://registry/name:tag. The copy on the claim stays. May be set or edited at any time, also after the "
            "job has ended. The condition Published says whether it is there. While the model is served, the "
            "publish pod needs accessModes with ReadWriteMany, or the server's node. Ports other than 443 need the "
            "administrator's networkPolicies.egress (Hone's chart).",
        ),
    ] = None
    s3: Annotated[
        S3Store | None, Field(description="Store of an s3:// URI. May be edited at any time. Default: Amazon S3.")
    ] = None
    credentials_secret_ref: Annotated[
        LocalReference | None,
        Field(
            description="Secret with the credentials for uri, which only the publish pod gets. s3://: the keys "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary ones, AWS_SESSION_TOKEN. hf://: HF_TOKEN. "
            "oci://: a Secret of type kubernetes.io/dockerconfigjson. May be edited at any time."
        ),
    ] = None
    publish_request: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=64,
            description="Any text. Change it to publish again, as after the Secret was corrected.",
        ),
    ] = None


PUBLISH_FIELDS = ("uri", "s3", "credentialsSecretRef", "publishRequest")
"""Fields of the output that are about its copy."""
