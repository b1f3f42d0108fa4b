"""Names, labels and annotations of all objects that Hone creates."""

import hashlib
import re

from hone.api import finetunejob, modeldeployment
from hone.core.observed import Object

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "hone"
MANAGED_SELECTOR = f"{MANAGED_BY_LABEL}={MANAGED_BY}"
"""Label selector that every child matches; watches are filtered with it on the server."""
UID_LABEL = "hone.dev/uid"
"""uid of the resource that a child or pod belongs to."""
STEP_LABEL = "hone.dev/step"
"""What a child is for: prepare, train, finish, publish or serve."""
RESOURCE_LABELS = {finetunejob.KIND: "hone.dev/job", modeldeployment.KIND: "hone.dev/deployment"}
"""By kind: the label that names the resource that a child or pod belongs to. People select by it; we select by uid."""
REVISION_LABEL = "hone.dev/revision"
"""Revision of the server that a pod of a ModelDeployment runs."""
ROLE_LABEL = "hone.dev/role"
"""Role of the revision that a pod of a ModelDeployment runs. In no selector: see `Server.selector`."""
OWNER_ANNOTATION = "hone.dev/owner"
"""`<Kind>/<name>` of the resource that a child or pod belongs to, in its own namespace."""
RETAIN_ANNOTATION = "hone.dev/retain"
"""On a claim that outlives its FineTuneJob; it never gets an owner of our kinds."""
INPUTS_ANNOTATION = "hone.dev/inputs"
"""Digest of what a Deployment or NetworkPolicy was rendered from: it is applied again only when that changes."""
SPEC_ANNOTATION = "hone.dev/spec"
"""Digest of the FineTuneJob's spec from which a Job was rendered."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""Kueue's label for the queue in which a Job waits."""
COMPLETION_INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
"""Kubernetes' label for the index of a pod in its Job."""

MAX_LABEL = 63
"""Maximum length of a label's value; a resource's name may have 253 characters."""
MAX_SLUG = 40
HASH_LENGTH = 6


def slug(name: str) -> str:
    """`name` as part of a DNS label: at most 40 of [a-z0-9-], starting with a letter, ending with a letter or digit.

    `3b-sft` and `llama-3.1` are valid names of a resource, but not of a Service or an Indexed Job.
    """
    text = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not text[:1].isalpha():
        text = f"h-{text}"
    return text[:MAX_SLUG].rstrip("-")


def digest(*parts: str, length: int = HASH_LENGTH) -> str:
    """The first hex digits of a hash over the parts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:length]


def unique(name: str, *identity: str) -> str:
    """A slug of `name` and a hash of its identity; a valid DNS label of at most 47 characters."""
    return f"{slug(name)}-{digest(*identity)}"


def owner_annotation(resource: Object) -> str:
    """The value of `hone.dev/owner` on the resource's children."""
    return f"{resource['kind']}/{resource['metadata']['name']}"


def owner_of(obj: Object) -> tuple[str, str] | None:
    """Kind and name of the resource that a child or pod belongs to, or None if it names none."""
    value = (obj.get("metadata", {}).get("annotations") or {}).get(OWNER_ANNOTATION, "")
    kind, _, name = value.partition("/")
    return (kind, name) if kind and name else None


def label_value(name: str) -> str:
    """A resource's name as a label's value: the name itself, or a slug and a hash if it has more than 63 characters.

    A shorter name is always valid: both allow dots and hyphens between letters or digits.
    """
    return name if len(name) <= MAX_LABEL else unique(name, name)


def labels(resource: Object, step: str) -> dict[str, str]:
    """The labels of a child and of its pods."""
    meta = resource["metadata"]
    return {
        MANAGED_BY_LABEL: MANAGED_BY,
        UID_LABEL: meta["uid"],
        RESOURCE_LABELS[resource["kind"]]: label_value(meta["name"]),
        STEP_LABEL: str(step),
    }


def plural(kind: str) -> str:
    """The kind's name in a URL. Correct for every kind that Hone uses."""
    return kind.lower()[:-1] + "ies" if kind.endswith("y") else kind.lower() + "s"
