"""The operator's token against the real API server: all that the operator writes passes, all else is refused."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dev.cluster.api import Api
from dev.cluster.controlplane import ControlPlane
from dev.cluster.say import wait_until
from hone.api import API_VERSION
from hone.core.names import MANAGED_BY, MANAGED_BY_LABEL, RETAIN_ANNOTATION, UID_LABEL
from hone.core.observed import Object
from tests.chart.conftest import manifests_of
from tests.chart.test_rbac import operator_rules
from tests.golden.objects import objects
from tests.integration.identity import DENIED, NAMESPACE, Identity, where
from tests.integration.support import FTJ, Cluster, finetunejob, object_of

UID = "11111111-aaaa"
LEASE = "hone"
"""The Lease of a release of that name."""
Change = Callable[[Object], Any]


OBJECTS = dict(objects())


def example(kind: str, namespace: str, change: Change | None = None) -> Object:
    """An object that the operator writes, with a change."""
    body = copy.deepcopy(next(body for body in OBJECTS.values() if body["kind"] == kind))
    body["metadata"]["namespace"] = namespace
    if change:
        change(body)
    return body


def pod(change: Change) -> Change:
    """A change of the spec of an object's pods."""
    return lambda body: change(body["spec"]["template"]["spec"])


def container(**security: Any) -> Change:
    """A change of the container's security."""
    return pod(lambda spec: spec["containers"][0]["securityContext"].update(security))


def volume(**source: Any) -> Change:
    """Another volume of an object's pods."""
    return pod(lambda spec: spec["volumes"].append({"name": "more", **source}))


def init_container(spec: Object) -> None:
    """A privileged init container."""
    spec["initContainers"] = [{"name": "first", "image": "a", "securityContext": {"privileged": True}}]


def without_uid(body: Object) -> None:
    """Labels without the resource's uid."""
    del body["metadata"]["labels"][UID_LABEL]


def foreign_owner(body: Object) -> None:
    """An owner that is no resource of Hone."""
    body["metadata"]["ownerReferences"][0] |= {"apiVersion": "apps/v1", "kind": "Deployment"}


TOKEN = {"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
ACCOUNT, HOST, VOLUMES = (
    "default service account",
    "namespaces or ports of the host",
    "persistentVolumeClaim, configMap",
)
SECURITY, LABELS, CONTROLLER = "restricted Pod Security Standard", "only write objects with the labels", "controller"

ESCALATIONS: dict[str, tuple[str, Change, str]] = {
    "an object without the labels": ("ConfigMap", lambda body: body["metadata"].pop("labels"), LABELS),
    "an object of no resource": ("Job", without_uid, LABELS),
    "an object of another manager": (
        "Job", lambda body: body["metadata"]["labels"].update({MANAGED_BY_LABEL: "Helm"}), LABELS
    ),
    "an object without an owner": ("Job", lambda body: body["metadata"].pop("ownerReferences"), CONTROLLER),
    "an object of a foreign owner": ("ConfigMap", foreign_owner, CONTROLLER),
    "an owner other than the labels say": (
        "Job", lambda body: body["metadata"]["ownerReferences"][0].update(uid="another"), CONTROLLER
    ),
    "a service account": ("Job", pod(lambda spec: spec.update(serviceAccountName="admin")), ACCOUNT),
    "a mounted token": ("Job", pod(lambda spec: spec.update(automountServiceAccountToken=True)), ACCOUNT),
    "a token by default": ("Deployment", pod(lambda spec: spec.pop("automountServiceAccountToken")), ACCOUNT),
    "a projected token": ("Job", volume(**TOKEN), VOLUMES),
    "the host's files": ("Job", volume(hostPath={"path": "/"}), VOLUMES),
    "an image by its tag": ("Job", volume(image={"reference": "registry.example.com/a:1"}), VOLUMES),
    "a budget of others' pods": (
        "PodDisruptionBudget",
        lambda body: body["spec"]["selector"].update(matchLabels={"app": "database"}),
        "must select pods",
    ),
    "a Secret of an account": (
        "Secret",
        lambda body: body.update(type="kubernetes.io/service-account-token") or body["metadata"]["annotations"].update(
            {"kubernetes.io/service-account.name": "default"}
        ),
        "type Opaque",
    ),
    "a Secret with other entries": ("Secret", lambda body: body.update(stringData={"tls.key": "a"}), "type Opaque"),
    "a Secret of no resource": ("Secret", without_uid, LABELS),
    "the host's network": ("Job", pod(lambda spec: spec.update(hostNetwork=True)), HOST),
    "the host's processes": ("Deployment", pod(lambda spec: spec.update(hostPID=True)), HOST),
    "the host's IPC": ("Job", pod(lambda spec: spec.update(hostIPC=True)), HOST),
    "a port of the host": (
        "Job", pod(lambda spec: spec["containers"][0].update(ports=[{"containerPort": 1, "hostPort": 1}])), HOST
    ),
    "a node by name": ("Job", pod(lambda spec: spec.update(nodeName="control-plane")), HOST),
    "a privileged container": (
        "Job", container(privileged=True, allowPrivilegeEscalation=True), SECURITY
    ),
    "a privileged init container": ("Deployment", pod(init_container), SECURITY),
    "an added capability": ("Job", container(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]}), SECURITY),
    "capabilities that are kept": ("Job", container(capabilities={}), SECURITY),
    "privilege escalation": ("Deployment", container(allowPrivilegeEscalation=True), SECURITY),
    "privilege escalation by default": (
        "Job", pod(lambda spec: spec["containers"][0].pop("securityContext")), SECURITY
    ),
    "root in the pod": ("Job", pod(lambda spec: spec["securityContext"].update(runAsUser=0)), SECURITY),
    "root in the container": ("Job", container(runAsNonRoot=False), SECURITY),
    "no seccomp profile": (
        "Job", pod(lambda spec: spec["securityContext"].update(seccompProfile={"type": "Unconfined"})), SECURITY
    ),
    "no seccomp profile in the container": (
        "Deployment", container(seccompProfile={"type": "Unconfined"}), SECURITY
    ),
    "a kernel parameter": (
        "Job",
        pod(lambda spec: spec["securityContext"].update(sysctls=[{"name": "kernel.msgmax", "value": "1"}])),
        SECURITY,
    ),
    "a priority class of the cluster": (
        "Job", pod(lambda spec: spec.update(priorityClassName="system-node-critical")), "system-*"
    ),
    "pods of another resource": (
        "Job",
        lambda body: body["spec"]["template"]["metadata"]["labels"].update({UID_LABEL: "another"}),
        "label hone.dev/uid",
    ),
    "a Service for an address outside": (
        "Service",
        lambda body: body.update(
            spec={"type": "ExternalName", "externalName": "example.com", "selector": {UID_LABEL: UID}}
        ),
        "of type ClusterIP",
    ),
    "a Service for others' pods": (
        "Service", lambda body: body["spec"].update(selector={"app": "database"}), "select pods by hone.dev/uid"
    ),
    "a Service that takes over an address": (
        "Service", lambda body: body["spec"].update(externalIPs=["10.0.0.1"]), "external addresses"
    ),
    "a NetworkPolicy for all pods": (
        "NetworkPolicy", lambda body: body["spec"].update(podSelector={}), "select pods by the hone.dev/uid"
    ),
}  # fmt: skip


def refused(answer: tuple[int, Any], words: str) -> None:
    """The policy refused it, with these words."""
    status, body = answer
    assert (status, DENIED in body["message"]) == (422, True) and words in body["message"], body


@pytest.mark.parametrize("name", OBJECTS)
def test_what_the_operator_writes_is_permitted(name: str, identity: Identity, cluster: Cluster) -> None:
    body = copy.deepcopy(OBJECTS[name])
    body["metadata"]["namespace"] = cluster.namespace
    status, answer = identity.create(cluster.namespace, body)
    assert status == 201, answer
    if body["kind"] in ("Service", "Deployment", "NetworkPolicy"):
        status, answer = identity.apply(cluster.namespace, body)
        assert status == 201, answer


def test_an_image_volume_with_a_digest_is_permitted(identity: Identity, cluster: Cluster) -> None:
    reference = f"registry.example.com/a:1@sha256:{'0' * 64}"
    body = example("Job", cluster.namespace, volume(image={"reference": reference}))
    status, answer = identity.create(cluster.namespace, body)
    assert status == 201, answer
    assert answer["spec"]["template"]["spec"]["volumes"][-1]["image"]["reference"] == reference


@pytest.mark.parametrize("case", ESCALATIONS)
def test_what_it_never_writes_is_refused(case: str, identity: Identity, cluster: Cluster) -> None:
    kind, change, words = ESCALATIONS[case]
    refused(identity.create(cluster.namespace, example(kind, cluster.namespace, change)), words)


def test_nothing_is_written_in_the_clusters_own_namespaces(identity: Identity) -> None:
    refused(identity.create("kube-system", example("Job", "kube-system")), "kube-*")


def claim(name: str, **metadata: Any) -> Object:
    """A claim."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, **metadata}, "spec": spec}


def reference(owner: Object) -> Object:
    """The owner reference to an object, which must exist: else garbage collection deletes what it owns."""
    name, uid = owner["metadata"]["name"], owner["metadata"]["uid"]
    return {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": name, "uid": uid}


async def existing(cluster: Cluster, body: Object) -> Object:
    """An object that exists."""
    await cluster.create(body)
    live = await cluster.get(body["kind"], body["metadata"]["name"], body["apiVersion"])
    assert live
    return live


async def test_of_claims_only_the_owner_references_of_our_kinds_change(identity: Identity, cluster: Cluster) -> None:
    labels = {MANAGED_BY_LABEL: MANAGED_BY, UID_LABEL: UID}
    job = reference(await existing(cluster, finetunejob("owner")))
    reader = reference(await existing(cluster, finetunejob("reader")))
    other = reference(await existing(cluster, object_of("v1", "ConfigMap", "other")))
    artifact = claim("artifact", labels=labels, ownerReferences=[other, job])
    retained = claim("retained", labels=labels, annotations={RETAIN_ANNOTATION: "true"})
    stranger = claim("stranger", ownerReferences=[job])
    await cluster.create(artifact, retained, stranger)

    def patch(target: Object, **metadata: Any) -> tuple[int, Any]:
        return identity.patch(cluster.namespace, target, {"metadata": metadata})

    for target, owners in ((artifact, [other, job, reader]), (artifact, [other]), (stranger, [])):
        status, answer = patch(target, ownerReferences=owners)
        assert status == 200, answer
    unchanged = "nothing of a claim but the owner references"
    refused(patch(artifact, ownerReferences=[job, reader]), unchanged)
    refused(patch(artifact, labels={"a": "b"}), unchanged)
    refused(patch(artifact, annotations={"a": "b"}), unchanged)
    refused(patch(artifact, finalizers=["a.example.com/b"]), unchanged)
    refused(patch(stranger, labels=labels), unchanged)
    refused(patch(retained, ownerReferences=[reader]), "only to claims that it created")
    refused(patch(stranger, ownerReferences=[job, reader]), "only to claims that it created")


async def test_foreign_objects_are_neither_taken_over_nor_deleted(identity: Identity, cluster: Cluster) -> None:
    deployment, job = example("Deployment", cluster.namespace), example("Job", cluster.namespace)
    for body in (deployment, job):
        del body["metadata"]["labels"], body["metadata"]["ownerReferences"]
        body["spec"]["suspend" if body["kind"] == "Job" else "paused"] = True
    # A Job without labels gets those of its pods.
    job["spec"]["template"]["metadata"]["labels"] = {"app": "database"}
    await cluster.create(deployment, job)
    refused(identity.apply(cluster.namespace, example("Deployment", cluster.namespace)), LABELS)
    refused(identity.delete(cluster.namespace, job), LABELS)


async def test_network_policies_may_be_deleted_only_where_they_are_switched_off_and_only_ours(
    identity: Identity, cluster: Cluster, plane: ControlPlane, tmp_path: Path
) -> None:
    job = reference(await existing(cluster, finetunejob("owner")))
    ours, theirs = example("NetworkPolicy", cluster.namespace), example("NetworkPolicy", cluster.namespace)
    ours["metadata"]["labels"][UID_LABEL] = job["uid"]
    ours["metadata"]["ownerReferences"] = [{**job, "controller": True}]
    theirs["metadata"] = {"name": "theirs", "namespace": cluster.namespace}
    await cluster.create(ours, theirs)
    assert identity.delete(cluster.namespace, ours)[0] == 403
    with switched_off(plane.api, tmp_path):
        wait_until(lambda: identity.delete(cluster.namespace, ours)[0] == 200, "the right taking effect", 30)
        refused(identity.delete(cluster.namespace, theirs), LABELS)
    wait_until(lambda: identity.delete(cluster.namespace, ours)[0] == 403, "the right ending", 30)


@contextmanager
def switched_off(api: Api, folder: Path) -> Iterator[None]:
    """Rights and policy of the chart with NetworkPolicies switched off."""

    def install(values: Object) -> None:
        for manifest in manifests_of(values, folder):
            if manifest["kind"] in ("ClusterRole", "ValidatingAdmissionPolicy"):
                api.apply(where(manifest), manifest)

    install({"networkPolicies": {"enabled": False}})
    try:
        yield
    finally:
        install({})


async def test_a_deployment_that_others_changed_can_still_be_scaled_but_not_by_us_given_privileges(
    identity: Identity, cluster: Cluster
) -> None:
    job = reference(await existing(cluster, finetunejob("owner")))
    uid = job["uid"]

    def owned(body: Object) -> None:
        body["metadata"]["labels"][UID_LABEL] = uid
        body["metadata"]["ownerReferences"] = [{**job, "controller": True}]
        body["spec"] |= {"paused": True, "replicas": 0, "selector": {"matchLabels": {UID_LABEL: uid}}}
        body["spec"]["template"]["metadata"]["labels"][UID_LABEL] = uid

    ours = example("Deployment", cluster.namespace, owned)
    theirs = copy.deepcopy(ours)
    container(privileged=True, allowPrivilegeEscalation=True)(theirs)
    await cluster.create(ours)
    refused(identity.apply(cluster.namespace, theirs), SECURITY)
    patch = {"spec": {"template": theirs["spec"]["template"]}}
    await cluster.patch("Deployment", ours["metadata"]["name"], patch, "apps/v1")
    assert identity.patch(cluster.namespace, ours, {"spec": {"replicas": 2}})[0] == 200


def test_events_are_about_our_kinds_only(identity: Identity, cluster: Cluster) -> None:
    def event(api_version: str, kind: str) -> Object:
        return {
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a.b"},
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "hone.dev/operator",
            "reportingInstance": "a", "action": "A", "reason": "A", "type": "Normal", "note": "a",
            "regarding": {"apiVersion": api_version, "kind": kind, "namespace": cluster.namespace, "name": "b"},
        }  # fmt: skip

    status, answer = identity.create(cluster.namespace, event(API_VERSION, FTJ))
    assert status == 201, answer
    refused(identity.create(cluster.namespace, event("v1", "Pod")), "Events of Hone's operator")


def test_no_lease_is_written_but_its_own(identity: Identity, cluster: Cluster, plane: ControlPlane) -> None:
    def lease(name: str) -> Object:
        return object_of("coordination.k8s.io/v1", "Lease", name, spec={"holderIdentity": "a"})

    url = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{LEASE}"
    plane.api.apply(url, lease(LEASE))
    status, answer = identity.patch(
        NAMESPACE, {**lease(LEASE), "metadata": {"name": LEASE, "namespace": NAMESPACE}}, {}
    )
    assert status == 200, answer
    plane.api.call("DELETE", url)
    status, answer = identity.create(NAMESPACE, lease(LEASE))
    assert status == 201, answer
    refused(identity.create(NAMESPACE, lease("other")), "only write its own Lease")
    assert identity.create(cluster.namespace, lease(LEASE))[0] == 403
    with cluster_admin(plane.api, identity):
        refused(identity.create(cluster.namespace, lease(LEASE)), "only write its own Lease")


def test_a_right_that_somebody_adds_to_the_role_has_no_effect(identity: Identity, plane: ControlPlane) -> None:
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "a"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
    }  # fmt: skip
    plane.api.apply("/api/v1/namespaces/default/persistentvolumeclaims/any", claim("any"))
    with cluster_admin(plane.api, identity):
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}
        plane.api.apply("/api/v1/namespaces/default/secrets/a", secret)
        refused(identity.create("default", {**secret, "metadata": {"name": "b"}}), LABELS)
        refused(identity.patch("default", secret, {"data": {}}), "may not update core/v1/secrets")
        refused(identity.delete("default", secret), "may not delete core/v1/secrets")
        refused(identity.create("", binding), "may not create rbac.authorization.k8s.io/v1/clusterrolebindings")
        refused(identity.delete("default", claim("any")), "may not delete core/v1/persistentvolumeclaims")
        url = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/hone/token?dryRun=All"
        token = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        refused(identity.request("POST", url, token), "may not create core/v1/serviceaccounts/token")


@contextmanager
def cluster_admin(api: Api, identity: Identity) -> Iterator[None]:
    """The operator's account as an administrator of the cluster, by a binding that is not the chart's."""
    url = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/hone-too-much"
    foreign = "/apis/storage.k8s.io/v1/storageclasses"  # The chart gives no right to it.
    api.apply(
        url,
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "hone-too-much"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "hone", "namespace": NAMESPACE}],
        },
    )  # fmt: skip
    try:
        wait_until(lambda: identity.request("GET", foreign)[0] == 200, "the right taking effect", 30)
        yield
    finally:
        api.call("DELETE", url)
        wait_until(lambda: identity.request("GET", foreign)[0] == 403, "the right ending", 30)


def test_its_rights_are_those_of_the_chart_and_what_every_account_has(
    identity: Identity, cluster: Cluster, tmp_path
) -> None:
    granted = {right for rule in operator_rules(manifests_of({}, tmp_path)) for right in _rights(rule)}
    election = {right for right in granted if right[1] == "leases"}
    for namespace, own in ((cluster.namespace, granted - election), (NAMESPACE, granted)):
        review = {
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}
        }  # fmt: skip
        status, answer = identity.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review)
        assert status == 201, answer
        rights = {right for rule in answer["status"]["resourceRules"] for right in _rights(rule)}
        everybody = {right for right in rights if right[0] in ("authorization.k8s.io", "authentication.k8s.io")}
        assert rights - everybody == own, namespace
        assert {verb for _, _, verb in everybody} == {"create"}


def _rights(rule: Object) -> Iterator[tuple[str, str, str]]:
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            for verb in rule["verbs"]:
                yield group, resource, verb
