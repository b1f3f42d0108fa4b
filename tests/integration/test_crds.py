"""The CRDs on a real API server: accepted, explained, and refusing nonsense with the field and the remedy."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from dev.cluster.controlplane import ControlPlane
from hone.api.crds import MAX_CRD_BYTES, crds
from hone.core.observed import Object
from hone.runtime.errors import Invalid
from tests.integration.support import FTJ, MDEP, Cluster, finetunejob, kubectl, modeldeployment


def edited(obj: Object, path: str, value: Any) -> Object:
    """A copy with one field set; None removes it."""
    out = copy.deepcopy(obj)
    *parents, last = path.split(".")
    node = out
    for key in parents:
        node = node.setdefault(key, {})
    if value is None:
        del node[last]
    else:
        node[last] = value
    return out


def ftj(path: str, value: Any) -> Object:
    return edited(finetunejob(), f"spec.{path}", value)


def rewarded(*functions: Object) -> Object:
    """GRPO with these functions; without any with an empty `reward`."""
    return edited(ftj("objective", "GRPO"), "spec.reward", {"functions": list(functions)} if functions else {})


ITSELF = {"jobRef": {"name": finetunejob()["metadata"]["name"]}}
CLAIM = {"name": "data", "path": "rows.jsonl"}
SECRET = {"secretKeyRef": {"name": "wandb", "key": "api-key"}}
DIGEST = "sha256:" + "0" * 64
IMAGE = {"reference": f"registry.example.com:5000/team/model:v1@{DIGEST}"}
FILE = {"uri": "https://example.com/rows.jsonl", "sha256": "0" * 64}
BOTH = {"claim": CLAIM, "configMap": {"name": "rows", "key": "a"}}
REFUSED: dict[str, tuple[Object, str, str]] = {
    "no model": (ftj("model", None), "spec.model", "Required value"),
    "two models to begin with": (
        ftj("model.jobRef", {"name": "sft"}),
        "spec.model",
        "exactly one of claim, jobRef, uri and image",
    ),
    "a model from nowhere": (ftj("model", {}), "spec.model", "exactly one of claim, jobRef, uri and image"),
    "an adapter of another job's model": (
        edited(ftj("model", {"jobRef": {"name": "base"}}), "spec.output", {"merge": "Never"}),
        "spec.output.merge",
        "cannot be Never with model.jobRef",
    ),
    "an adapter of a model that no server finds": (
        edited(ftj("model", {"uri": "hf://acme/tiny"}), "spec.output", {"merge": "Never"}),
        "spec.output.merge",
        "cannot be Never with model.uri",
    ),
    "an adapter of a model in an image": (
        edited(ftj("model", {"image": IMAGE}), "spec.output", {"merge": "Never"}),
        "spec.output.merge",
        "cannot be Never with model.image",
    ),
    "a model's image by its tag": (
        ftj("model", {"image": {"reference": "registry.example.com/team/model:v1"}}),
        "spec.model.image.reference",
        "must end with @sha256:",
    ),
    "rows in an image by half a digest": (
        ftj("dataset.train", {"image": {"reference": IMAGE["reference"][:-1]}}),
        "spec.dataset.train.image.reference",
        "must end with @sha256:",
    ),
    "an image with the path of another": (
        ftj("model", {"image": {"reference": f"registry.example.com/team/../model@{DIGEST}"}}),
        "spec.model.image.reference",
        "should match",
    ),
    "a path out of an image": (
        ftj("dataset.test", {"image": {**IMAGE, "path": "a/../../b"}}),
        "spec.dataset.test.image.path",
        "must not contain '..'",
    ),
    "a revision of a claim": (ftj("model.revision", "main"), "spec.model.revision", "begins with hf://"),
    "a model's objects by a glob": (ftj("model", {"uri": "s3://models/*"}), "spec.model.uri", "should match"),
    "a store of a model of the Hub": (
        ftj("model", {"uri": "hf://a/b", "s3": {}}),
        "spec.model.s3",
        "begins with s3://",
    ),
    "a split of a file": (ftj("dataset.train", {**FILE, "split": "dev"}), "spec.dataset.train.split", "with hf://"),
    "a file without a digest": (
        ftj("dataset.train", {"uri": FILE["uri"]}),
        "spec.dataset.train.sha256",
        "is required with https://",
    ),
    "a login to a server": (
        ftj("dataset.train", {**FILE, "credentialsSecretRef": {"name": "a"}}),
        "spec.dataset.train.credentialsSecretRef",
        "hf:// or s3://",
    ),
    "a store at a URL with a password": (
        ftj("dataset.train", {"uri": "s3://a/b", "s3": {"endpoint": "https://a:b@c"}}),
        "spec.dataset.train.s3.endpoint",
        "should match",
    ),
    "a model of another scheme": (ftj("model", {"uri": "https://example.com/m"}), "spec.model.uri", "hf://"),
    "a model outside of the Hub": (ftj("model", {"uri": "hf://../m"}), "spec.model.uri", "hf://"),
    "its own model to begin with": (
        ftj("model", ITSELF),
        "spec.model.jobRef.name",
        "cannot wait for itself",
    ),
    "its own model as the reward": (
        edited(
            ftj("objective", "GRPO"),
            "spec.reward",
            {"model": ITSELF},
        ),
        "spec.reward.model.jobRef.name",
        "cannot wait for itself",
    ),
    "itself as its teacher": (
        edited(ftj("objective", "Distillation"), "spec.teacher", ITSELF),
        "spec.teacher.jobRef.name",
        "cannot wait for itself",
    ),
    "a path that leaves the volume": (ftj("model.claim.path", "a/../../b"), "spec.model.claim.path", "'..'"),
    "a glob that leaves the volume": (
        ftj("dataset.train", {"claim": {"name": "data", "path": "*/../../*.jsonl"}}),
        "spec.dataset.train.claim.path",
        "'..'",
    ),
    "a column without a name": (ftj("dataset.columns", {"prompt": ""}), "spec.dataset.columns.prompt", "at least 1"),
    "an absolute path": (ftj("model.claim.path", "/etc"), "spec.model.claim.path", "should match"),
    "two sources of data": (
        ftj("dataset.train", BOTH),
        "spec.dataset.train",
        "one of claim, configMap, uri, image and sources",
    ),
    "no source of data": (
        ftj("dataset.train", {}),
        "spec.dataset.train",
        "one of claim, configMap, uri, image and sources",
    ),
    "a fraction and a source": (
        ftj("dataset.test", {"fraction": 0.1, "claim": CLAIM}),
        "spec.dataset.test",
        "exactly one of claim, configMap, uri, image and fraction",
    ),
    "more than half held out": (ftj("dataset.test", {"fraction": 0.6}), "spec.dataset.test.fraction", "0.5"),
    "no test rows": (ftj("dataset.test", {"fraction": 0}), "spec.dataset.test.fraction", "must be above 0"),
    "an unknown objective": (ftj("objective", "PPO"), "spec.objective", 'supported values: "SFT"'),
    "QLoRA under ZeRO-3": (
        edited(ftj("method", {"type": "QLoRA"}), "spec.compute", {"zeroStage": 3}),
        "spec.compute.zeroStage",
        "must be 0 or 2 with method QLoRA",
    ),
    "LoRA's settings for Full": (ftj("method", {"type": "Full", "lora": {"rank": 8}}), "spec.method.lora", "Remove it"),
    "frozen layers for LoRA": (
        ftj("method", {"type": "LoRA", "freeze": {"layers": 1}}),
        "spec.method.freeze",
        "only with type Full",
    ),
    "frozen layers for the default method": (
        ftj("method", {"freeze": {"layers": 1}}),
        "spec.method.freeze",
        "only with type",
    ),
    "labels for SFT": (
        ftj("dataset.format", "TextLabel"),
        "spec.dataset.format",
        "objective SFT, which reads rows of format Messages,",
    ),
    "conversations for Classification": (
        edited(ftj("objective", "Classification"), "spec.dataset.format", "Messages"),
        "spec.dataset.format",
        "objective Classification, which reads rows of format TextLabel",
    ),
    "loss on tokens for Classification": (
        edited(ftj("objective", "Classification"), "spec.dataset.trainOn", "All"),
        "spec.dataset.trainOn",
        "is supported only with objective SFT",
    ),
    "weights of classes for SFT": (
        ftj("dataset.balance", "Weight"),
        "spec.dataset.balance",
        "only with objective Classification or KTO",
    ),
    "a tie to the base for SFT": (
        ftj("hyperparameters", {"beta": 0.1}),
        "spec.hyperparameters.beta",
        "only with objective DPO,",
    ),
    "pairs for KTO": (
        edited(ftj("objective", "KTO"), "spec.dataset.format", "Preference"),
        "spec.dataset.format",
        "objective KTO, which reads rows of format UnpairedPreference",
    ),
    "rewards for SFT": (
        ftj("reward", {"functions": [{"name": "F1"}]}),
        "spec.reward",
        "only with objective GRPO or RLOO",
    ),
    "GRPO without rewards": (ftj("objective", "GRPO"), "spec.reward", "is required with objective GRPO or RLOO"),
    "Distillation without a teacher": (
        ftj("objective", "Distillation"),
        "spec.teacher",
        "Set the model to learn from",
    ),
    "a teacher for SFT": (
        ftj("teacher", {"claim": {"name": "models", "path": "large"}}),
        "spec.teacher",
        "is supported only with objective Distillation",
    ),
    "several answers to compare with a teacher": (
        edited(
            edited(ftj("objective", "Distillation"), "spec.teacher", {"claim": {"name": "models", "path": "large"}}),
            "spec.hyperparameters",
            {"generations": 4},
        ),
        "spec.hyperparameters.generations",
        "is supported only with objective GRPO or RLOO",
    ),
    "rewards of nothing": (rewarded(), "spec.reward", "must have model, functions or both"),
    "a function of nobody's": (
        rewarded({"weight": 2}),
        "spec.reward.functions[0]",
        "exactly one of name and configMap",
    ),
    "a pattern without what matches it": (
        rewarded({"name": "F1", "pattern": "a"}),
        "spec.reward.functions[0].pattern",
        "is supported only with name Regex",
    ),
    "what matches without a pattern": (rewarded({"name": "Regex"}), "spec.reward.functions[0].pattern", "is required"),
    "an unknown function": (rewarded({"name": "Best"}), "spec.reward.functions[0].name", "supported values"),
    "a function's name without its file": (
        rewarded({"name": "F1", "function": "f"}),
        "spec.reward.functions[0].function",
        "only with configMap",
    ),
    "answers for DPO": (
        edited(ftj("objective", "DPO"), "spec.hyperparameters", {"generations": 4}),
        "spec.hyperparameters.generations",
        "is supported only with objective GRPO or RLOO",
    ),
    "DPO held by nothing": (
        edited(ftj("objective", "DPO"), "spec.hyperparameters", {"beta": 0}),
        "spec.hyperparameters.beta",
        "must be above 0 with objective DPO,",
    ),
    "packing for DPO": (
        edited(ftj("objective", "DPO"), "spec.hyperparameters", {"packing": True}),
        "spec.hyperparameters.packing",
        "can be true only with objective SFT",
    ),
    "all rows held out": (
        edited(ftj("dataset.test", {"fraction": 0.5}), "spec.dataset.validation", {"fraction": 0.5}),
        "spec.dataset.validation.fraction",
        "leaves no rows to train on",
    ),
    "epochs and steps": (
        ftj("hyperparameters", {"epochs": 1, "maxSteps": 5}),
        "spec.hyperparameters.maxSteps",
        "cannot be set together with epochs",
    ),
    "checkpoints by steps and by minutes": (
        ftj("checkpoint", {"everySteps": 5, "everyMinutes": 5}),
        "spec.checkpoint.everyMinutes",
        "cannot be set together with everySteps",
    ),
    "a rate in quotes": (ftj("hyperparameters", {"learningRate": "2e-4"}), "spec.hyperparameters.learningRate", "type"),
    "a rank that vLLM cannot serve": (ftj("method", {"lora": {"rank": 1024}}), "spec.method.lora.rank", "512"),
    "more processes than GPUs": (
        ftj("compute", {"gpusPerNode": 2, "processesPerNode": 4}),
        "spec.compute.processesPerNode",
        "must equal gpusPerNode",
    ),
    "an optimizer on the CPU's own memory": (
        ftj("compute", {"gpusPerNode": 0, "offloadOptimizer": True}),
        "spec.compute.offloadOptimizer",
        "only on GPUs",
    ),
    "weights in host memory under ZeRO-2": (
        ftj("compute", {"zeroStage": 2, "offloadParam": True}),
        "spec.compute.offloadParam",
        "only with zeroStage 3",
    ),
    "moments in 8 bits under ZeRO": (
        edited(ftj("hyperparameters", {"optim": "paged_adamw_8bit"}), "spec.compute", {"zeroStage": 3}),
        "spec.hyperparameters.optim",
        "only with zeroStage 0",
    ),
    "an unknown ZeRO stage": (ftj("compute.zeroStage", 1), "spec.compute.zeroStage", "supported values"),
    "a claim and a size": (
        ftj("workspace", {"claimName": "w", "size": "1Gi"}),
        "spec.workspace.claimName",
        "Remove size, storageClassName and accessModes",
    ),
    "a quantity that is none": (ftj("output", {"size": "20 GB"}), "spec.output.size", "should match"),
    "a negative number as quantity": (
        ftj("output", {"size": -1}),
        "spec.output.size",
        "should be greater than or equal to 0",
    ),
    "steps of a strategy that has no candidate": (
        modeldeployment(rollout={"strategy": "Recreate", "steps": [{"weight": 50}]}),
        "spec.rollout.steps",
        "is allowed only with strategy Canary",
    ),
    "a paused rollout of the default strategy": (
        modeldeployment(rollout={"paused": True}),
        "spec.rollout.paused",
        "is allowed only with strategy Canary",
    ),
    "more than all requests": (
        modeldeployment(rollout={"strategy": "Canary", "steps": [{"weight": 101}]}),
        "weight",
        "less than or equal to 100",
    ),
    "replicas below 0": (modeldeployment(replicas=-1), "spec.replicas", "greater than or equal to 0"),
    "a variable with a value and a Secret": (
        ftj("compute.pod", {"env": [{"name": "KEY", "value": "k", "valueFrom": SECRET}]}),
        "spec.compute.pod.env[0].valueFrom",
        "cannot be set together with value",
    ),
    "a server's variable with both": (
        modeldeployment(runtime={"env": [{"name": "KEY", "value": "", "valueFrom": SECRET}]}),
        "spec.runtime.env[0].valueFrom",
        "cannot be set together with value",
    ),
    "an argument that makes a server run a model's code": (
        modeldeployment(runtime={"args": ["--seed=1", "--trust_remote_code"]}),
        "spec.runtime.args[1]",
        "not an argument that may be added",
    ),
    "the same after a newline": (
        modeldeployment(runtime={"args": ["--hf-overrides=\n{}"]}),
        "spec.runtime.args[0]",
        "not an argument that may be added",
    ),
    "a variable that opens a server": (
        modeldeployment(runtime={"env": [{"name": "VLLM_SERVER_DEV_MODE", "value": "1"}]}),
        "spec.runtime.env[0].name",
        "a variable by which vLLM may run code",
    ),
    "a variable of an unknown step": (
        ftj("compute.pod", {"env": [{"name": "KEY", "valueFrom": SECRET, "steps": ["Serve"]}]}),
        "spec.compute.pod.env[0].steps[0]",
        "Unsupported value",
    ),
    "a variable of no step": (
        ftj("compute.pod", {"env": [{"name": "KEY", "valueFrom": SECRET, "steps": []}]}),
        "spec.compute.pod.env[0].steps",
        "should have at least 1 items",
    ),
    "a Secret without a key": (
        ftj("compute.pod", {"env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "wandb"}}}]}),
        "spec.compute.pod.env[0].valueFrom.secretKeyRef.key",
        "Required value",
    ),
    "a served name with spaces": (modeldeployment(servedName="my model"), "spec.servedName", "should match"),
    "no job to serve": (edited(modeldeployment(), "spec.model.jobRef", None), "spec.model", "exactly one of"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_is_refused_with_the_field_and_the_remedy(cluster: Cluster, case: str) -> None:
    obj, field, words = REFUSED[case]
    with pytest.raises(Invalid) as refusal:
        await cluster.create(obj)
    assert f"{field}: " in refusal.value.message
    assert words in refusal.value.message


ACCEPTED = {
    "the least": finetunejob(),
    "a name that no Service may have": finetunejob("3b.v1-sft"),
    "a model and rows in images": finetunejob(
        model={"image": {**IMAGE, "path": "base/model"}},
        dataset={"train": {"sources": [{"name": "a", "image": IMAGE}]}, "test": {"image": IMAGE}},
    ),
    "a number as quantity": ftj("output", {"size": 1073741824, "retain": True}),
    "everything off its default": finetunejob(
        dataset={
            "train": {"claim": CLAIM},
            "validation": {"fraction": 0},
            "test": {"claim": CLAIM},
            "minSamples": 10,
        },
        method={"type": "LoRA", "lora": {"rank": 8, "alpha": 16, "dropout": 0.1, "targetModules": ["q_proj"]}},
        compute={
            "nodes": 2,
            "gpusPerNode": 0,
            "processesPerNode": 2,
            "zeroStage": 3,
            "pod": {
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "affinity": {"nodeAffinity": {}},
                "env": [{"name": "KEY", "valueFrom": SECRET}, {"name": "MODE", "value": "offline"}, {"name": "EMPTY"}],
            },
            "resources": {"limits": {"cpu": 2, "memory": "4Gi"}},
        },
        hyperparameters={"maxSteps": 5, "learningRate": 2e-4},
        checkpoint={"everyMinutes": 30, "keep": 1},
        retry={"limit": 0},
    ),
    "a glob, another tool's format, and names of columns": finetunejob(
        dataset={
            "train": {"claim": {"name": "data", "path": "2026/**/[a-z]?*.jsonl.gz"}},
            "format": "Alpaca",
            "columns": {"instruction": "question", "output": "answer"},
        }
    ),
    "classification with all that is its own": finetunejob(
        objective="Classification",
        dataset={"train": {"claim": CLAIM}, "format": "TextLabel", "balance": "Weight"},
        method={"type": "Full", "freeze": {"layers": 2, "embeddings": True}},
    ),
    "no packing for DPO": edited(ftj("objective", "DPO"), "spec.hyperparameters", {"packing": False}),
    "nearly all rows held out": edited(
        ftj("dataset.test", {"fraction": 0.5}), "spec.dataset.validation", {"fraction": 0.499}
    ),
    "a deployment": modeldeployment(
        replicas=2,
        servedName="org/model",
        runtime={
            "args": ["--seed=1", "--max_model_len", "4096", "--no-enable-prefix-caching", "--generation-config=vllm"],
            "env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {**SECRET["secretKeyRef"], "optional": True}}}],
        },
    ),
}


@pytest.mark.parametrize("case", ACCEPTED)
async def test_is_accepted_and_stored_as_written(cluster: Cluster, case: str) -> None:
    obj = ACCEPTED[case]
    await cluster.create(obj)
    stored = await cluster.get(obj["kind"], obj["metadata"]["name"])
    # Nothing is dropped, and no default is written into the spec: it is its author's.
    assert stored and stored["spec"] == obj["spec"]


CHANGES = {
    "model": {"claim": {"name": "base-models", "path": "other"}},
    "dataset": {"minSamples": 5},
    "method": {"type": "Full"},
    "hyperparameters": {"epochs": 2},
    "compute": {"nodes": 2},
    "retry": {"limit": 1},
    "output": {"size": "1Gi"},
}


@pytest.mark.parametrize("field", CHANGES)
async def test_a_started_run_cannot_change(cluster: Cluster, field: str) -> None:
    await cluster.create(finetunejob())
    job = await cluster.get(FTJ, "sft")
    assert job
    await cluster.client.update_status(job, {"startTime": "2026-01-01T00:00:00Z"})
    with pytest.raises(Invalid) as refusal:
        await cluster.patch(FTJ, "sft", {"spec": {field: CHANGES[field]}})
    assert f"spec.{field}" in refusal.value.message
    assert "with another metadata.name" in refusal.value.message


async def test_before_its_start_a_run_may_change(cluster: Cluster) -> None:
    await cluster.create(finetunejob())
    for field, change in CHANGES.items():
        await cluster.patch(FTJ, "sft", {"spec": {field: change}})


async def test_a_started_run_can_be_suspended_and_labeled(cluster: Cluster) -> None:
    await cluster.create(finetunejob())
    job = await cluster.get(FTJ, "sft")
    assert job
    await cluster.client.update_status(job, {"startTime": "2026-01-01T00:00:00Z"})
    await cluster.patch(FTJ, "sft", {"spec": {"suspend": True}, "metadata": {"labels": {"a": "b"}}})


async def test_a_server_that_is_older_than_a_rule_keeps_its_status_and_may_change_otherwise(
    cluster: Cluster, plane: ControlPlane
) -> None:
    crd = crds()["modeldeployments"]
    where = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}"
    before = copy.deepcopy(crd)
    spec = before["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    del spec["runtime"]["properties"]["args"]["items"]["x-kubernetes-validations"]
    old = modeldeployment(runtime={"args": ["--seed=1", "--trust-remote-code"]})
    plane.api.apply(where, before)
    try:

        async def create() -> bool:
            try:
                await cluster.create(old)
            except Invalid:
                return False
            return True

        await cluster.wait_for("the older CRD", create, 30)
    finally:
        plane.api.apply(where, crd)

    async def is_refused() -> bool:
        try:
            await cluster.create(edited(old, "metadata.name", "newer"))
        except Invalid:
            return True
        await cluster.delete(edited(old, "metadata.name", "newer"))
        return False

    await cluster.wait_for("the newer CRD", is_refused, 30)
    live = await cluster.get(MDEP, "sft")
    assert live
    await cluster.client.update_status(live, {"phase": "Failed"})
    await cluster.patch(MDEP, "sft", {"spec": {"drainSeconds": 5}})
    with pytest.raises(Invalid):
        await cluster.patch(MDEP, "sft", {"spec": {"runtime": {"args": ["--trust-remote-code"]}}})


async def test_replicas_scale_through_the_subresource(cluster: Cluster) -> None:
    await cluster.create(modeldeployment())
    code, _, err = await kubectl(cluster, "scale", "mdep/sft", "--replicas=3")
    assert code == 0, err
    deployment = await cluster.get(MDEP, "sft")
    assert deployment and deployment["spec"]["replicas"] == 3


@pytest.mark.parametrize("path", ["ftj.spec.method", "ftj.spec.dataset.onScarceData", "mdep.spec.drainSeconds"])
async def test_kubectl_explains(cluster: Cluster, path: str) -> None:
    code, out, err = await kubectl(cluster, "explain", path)
    assert code == 0, err
    assert "DESCRIPTION" in out and "<empty>" not in out


@pytest.mark.parametrize("plural", list(crds()))
def test_every_field_has_a_description(plural: str) -> None:
    schema = crds()[plural]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    missing = [path for path, node in fields(schema) if not node.get("description") and path != "metadata"]
    assert not missing


@pytest.mark.parametrize("plural", list(crds()))
def test_is_small_enough_for_kubectl_apply(plural: str) -> None:
    assert len(str(crds()[plural])) < MAX_CRD_BYTES


def fields(schema: Object, path: str = "") -> Iterator[tuple[str, Object]]:
    """Every named field below a schema, with its path."""
    for name, node in schema.get("properties", {}).items():
        where = f"{path}.{name}".lstrip(".")
        yield where, node
        yield from fields(node, where)
        yield from fields(node.get("items", {}), where + "[]")
