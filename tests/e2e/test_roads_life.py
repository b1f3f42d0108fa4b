"""The whole way on the cluster: a model of the Hub and rows in S3 become a model in S3, served in another namespace.

The Hub is a server of this process, the store versitygw, both at the address of the cluster's node. The namespace that
serves never saw the job. Secrets are planted, and nothing but the containers that need them may have them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import hub_server
import pytest
from botocore.exceptions import ClientError

from dev import install
from dev.basemodel import cache
from dev.cluster.paths import BRIDGE_ADDRESS
from dev.kube import Kube, Object, is_true
from hone.contract.report import Report
from tests.e2e import object_store, sweep
from tests.e2e.object_store import BUCKET, ObjectStore
from tests.e2e.support import DATA, assert_serves, finished, namespace, read_volume

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

NAME, SERVED, CACHE = "support", "models/support-v1", "hone-cache"
TOKEN, ACCESS, SECRET = "hf_planted5190", "AKPLANTED5190", "planted-secret-5190"
SECRETS = (TOKEN, ACCESS, SECRET)
READERS = tuple(f"hone_trainer.{module}" for module in ("prepare", "publish", "fetch"))
"""Programs that need credentials."""
STEPS = (*READERS, "hone_trainer.launch", "hone_trainer.finish", "vllm")
SECONDS = 1500


@dataclass
class Roads:
    """What was served and seen.

    Attributes:
        job: the job, once it has ended.
        deployment: the ModelDeployment, once it serves.
        report: the report next to the artifact.
        processes: what ran in pods meanwhile.
    """

    job: Object
    deployment: Object
    report: Report
    processes: sweep.Processes


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store.serving(tmp_path_factory.mktemp("store"), BRIDGE_ADDRESS, ACCESS, SECRET) as served:
        served.put("rows/train.jsonl", DATA.read_bytes())
        yield served


@pytest.fixture(scope="module")
def hub() -> Iterator[hub_server.Hub]:
    model = cache.find()
    assert model is not None, "the base model is not built: run `make images`"
    files = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    with hub_server.serving(hub_server.Hub(commits={hub_server.COMMIT: files}, token=TOKEN), BRIDGE_ADDRESS) as served:
        yield served


@pytest.fixture(scope="module")
def cluster(kube: Kube, images: dict[str, str], hub: hub_server.Hub, store: ObjectStore) -> Iterator[Kube]:
    """Hone, whose administrator allows both servers."""
    allowed = {
        "huggingFace": {"endpoint": hub.url},
        "s3": {"endpoints": [store.url]},
        "networkPolicies": {"egress": [{"to": [{"ipBlock": {"cidr": f"{BRIDGE_ADDRESS}/32"}}]}]},
    }
    install.install(kube, images, allowed)
    yield kube
    install.install(kube, images)


@pytest.fixture(scope="module")
def training(cluster: Kube) -> Iterator[Kube]:
    with namespace(cluster, "hone-e2e-roads") as scoped:
        scoped.apply(_secret("hub", HF_TOKEN=TOKEN), _store_secret(), _claim(CACHE))
        yield scoped


@pytest.fixture(scope="module")
def serving(cluster: Kube) -> Iterator[Kube]:
    """Another namespace, which has nothing but credentials of its own."""
    with namespace(cluster, "hone-e2e-roads-served") as scoped:
        scoped.apply(_store_secret())
        yield scoped


def _secret(name: str, **values: str) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}


def _claim(name: str) -> Object:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def _store_secret() -> Object:
    return _secret("store", AWS_ACCESS_KEY_ID=ACCESS, AWS_SECRET_ACCESS_KEY=SECRET)


def _place(store: ObjectStore, key: str) -> dict[str, Any]:
    return {
        "uri": f"s3://{BUCKET}/{key}",
        "s3": {"endpoint": store.url},
        "credentialsSecretRef": {"name": "store"},
    }


def _resource(kind: str, spec: dict[str, Any]) -> Object:
    return {"apiVersion": "hone.dev/v1alpha1", "kind": kind, "metadata": {"name": NAME}, "spec": spec}


def _job(store: ObjectStore) -> Object:
    return _resource(
        "FineTuneJob",
        {
            "model": {"uri": "hf://acme/tiny", "credentialsSecretRef": {"name": "hub"}},
            "dataset": {"train": _place(store, "rows/train.jsonl")},
            "compute": {"gpusPerNode": 0},
            "hyperparameters": {"maxSteps": 20, "sequenceLength": 128},
            "evaluation": {"maxSamples": 16, "maxNewTokens": 8},
            "cache": {"claimName": CACHE, "sizeLimit": "1Gi"},
            "output": _place(store, SERVED),
        },
    )


@pytest.fixture(scope="module")
def roads(training: Kube, serving: Kube, store: ObjectStore, images: dict[str, str]) -> Iterator[Roads]:
    processes = sweep.Processes(SECRETS)
    with processes.watched():
        training.apply(_job(store))
        finished(training, NAME, SECONDS)
        job = training.wait("finetunejob", NAME, lambda obj: is_true(obj, "Published"), "Published=True", SECONDS)
        text = read_volume(training, job["status"]["artifact"]["claim"], "report.json", images["hone-base-models"])
        report = Report.model_validate_json(text)
        digest = job["status"]["output"]["published"]["digest"]
        model = {**_place(store, SERVED), "digest": digest}
        serving.apply(_resource("ModelDeployment", {"model": model, "gpus": 0, "replicas": 1}))
        deployment = assert_serves(serving, NAME, report, 5, SECONDS)
        yield Roads(job, deployment, report, processes)


def test_it_is_published_by_the_commit_and_the_rows_that_it_was_made_of(roads: Roads, store: ObjectStore) -> None:
    status = roads.job["status"]
    assert status["phase"] == "Succeeded", status.get("attempts")
    downloads = {each["uri"]: each["revision"] for each in status["downloads"]}
    assert downloads["hf://acme/tiny"] == hub_server.COMMIT
    assert f"s3://{BUCKET}/rows/train.jsonl" in downloads
    objects = store.objects()
    assert {f"{SERVED}/{name}" for name in ("SHA256SUMS", "model.safetensors", "provenance.json")} <= set(objects)
    assert hub_server.COMMIT in objects[f"{SERVED}/provenance.json"].decode()


def test_the_store_answers_nobody_without_its_key(store: ObjectStore) -> None:
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        object_store.client(store.url, ACCESS, "another").list_objects_v2(Bucket=BUCKET)


def test_what_was_downloaded_is_on_the_cache_and_marked(roads: Roads, training: Kube) -> None:
    uid = roads.job["metadata"]["uid"]
    names = [path.as_posix() for path, _ in sweep.volumes(training)]
    marks = [name for name in names if f"/.hone/uses/{uid}/" in name]
    assert {name.rpartition("/")[2].partition("--")[0] for name in marks} == {"models", "data"}
    assert any(name.endswith(f"/models/{uid}-model/model.safetensors") for name in names)


def test_what_is_served_is_what_was_published(roads: Roads) -> None:
    """What it answers was compared with the report's samples when it began to serve."""
    assert roads.deployment["metadata"]["namespace"] != roads.job["metadata"]["namespace"]
    assert roads.deployment["status"]["stable"]["digest"] == roads.job["status"]["output"]["published"]["digest"]
    assert roads.report.model_name == "hf://acme/tiny"


def test_no_secret_is_shown_anywhere(
    roads: Roads, training: Kube, serving: Kube, kube: Kube, store: ObjectStore
) -> None:
    texts = {f"{ns.namespace}: {what}": text for ns in (training, serving) for what, text in sweep.shown(ns).items()}
    assert len(texts) > 6, f"logs of too few pods: {sorted(texts)}"
    texts |= {f"operator: {what}": text for what, text in sweep.shown(kube.within(install.SYSTEM_NAMESPACE)).items()}
    files = [(path.as_posix(), content) for ns in (training, serving) for path, content in sweep.volumes(ns)]
    assert any(name.endswith("artifact/model.safetensors") for name, _ in files), "the artifact's claim was read"
    files += [(f"s3: {key}", content) for key, content in store.objects().items()]
    for secret in SECRETS:
        assert not [name for name, text in texts.items() if secret in text]
        assert not [name for name, content in files if secret.encode() in content]


def test_only_the_programs_that_need_credentials_have_them(roads: Roads) -> None:
    seen = roads.processes
    unseen = [step for step in STEPS if not any(step in command for command in seen.commands)]
    assert not unseen, f"never seen: {unseen}"
    assert not seen.with_secret_argument
    assert seen.with_secret_variable, "the search finds what is there"
    assert not [command for command in seen.with_secret_variable if not any(name in command for name in READERS)]
