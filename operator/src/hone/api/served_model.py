"""The model of a ModelDeployment: the result of a job, or a model that a job published, wherever it is."""

from typing import Annotated

from pydantic import Field

from hone.api.dataset import REVISION, ImagePath
from hone.api.finetunejob import MODEL_URI
from hone.contract.base import Model
from hone.contract.objects import ClaimPath, LocalReference
from hone.contract.stores import S3Store


class RemoteModel(Model):
    """A model outside of the cluster."""

    uri: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=1024,
            pattern=MODEL_URI,
            description="Where an init container of each server downloads it from: hf://organization/name on the "
            "Hugging Face Hub, or s3://bucket/prefix.",
        ),
    ] = None
    image: Annotated[
        ImagePath | None,
        Field(
            description="OCI image with the model, which the kubelet mounts. It is pulled with spec.pod."
            "imagePullSecrets."
        ),
    ] = None
    revision: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=128,
            pattern=REVISION,
            description="Branch, tag or commit at uri. Default: the default branch. The servers use the commit that "
            "this names when spec.model is first seen. Allowed only with hf://.",
        ),
    ] = None
    s3: Annotated[S3Store | None, Field(description="The store. Allowed only with s3://. Default: Amazon S3.")] = None
    credentials_secret_ref: Annotated[
        LocalReference | None,
        Field(
            description="Secret with credentials, for what is not public. hf://: key HF_TOKEN has an access token. "
            "s3://: keys AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary ones, AWS_SESSION_TOKEN. Only the "
            "container that downloads gets them, never the server. Allowed only with uri."
        ),
    ] = None


class AdapterBase(RemoteModel):
    """The model that an adapter was trained on; its files are compared with the digest in the adapter's provenance."""

    claim: Annotated[
        ClaimPath | None,
        Field(
            description="Directory on a PersistentVolumeClaim. Exactly one of claim, uri and image must be set.",
        ),
    ] = None


class ServedModel(RemoteModel):
    """The model to serve. Exactly one of jobRef, uri and image must be set."""

    job_ref: Annotated[
        LocalReference | None,
        Field(
            description="FineTuneJob in the same namespace whose result is served as soon as the job is Complete and "
            "Promotable. A model that is served stays available if the job is deleted."
        ),
    ] = None
    digest: Annotated[
        str | None,
        Field(
            max_length=71,
            pattern=r"^sha256:[0-9a-f]{64}$",
            description="What the model must be: status.output.published.digest of the job that published it, which is "
            "the SHA-256 of its file SHA256SUMS. Default: what is there when spec.model is first seen. The servers "
            "start with that alone. Allowed only with uri and image.",
        ),
    ] = None
    base: Annotated[
        AdapterBase | None,
        Field(description="Base model of an adapter. Required for adapters. Allowed only with uri and image."),
    ] = None
