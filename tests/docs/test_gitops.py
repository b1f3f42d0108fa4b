"""What GitOps tools need to know of Hone's resources: kustomize's references, and manifests that parse."""

import subprocess
from pathlib import Path

import yaml

from dev import gitops
from dev.kube import command
from tests.docs.support import ROOT

FOLDER = ROOT / "examples/gitops"
JOBS = """
apiVersion: hone.dev/v1alpha1
kind: FineTuneJob
metadata: {name: first}
spec:
  model: {claim: {name: base, path: a}}
  dataset: {train: {configMap: {name: rows, key: train.jsonl}}}
  evaluation: {judge: {apiKeySecretRef: {name: judge}}}
---
apiVersion: hone.dev/v1alpha1
kind: FineTuneJob
metadata: {name: second}
spec:
  model: {jobRef: {name: first}}
  checkpoint: {continueFrom: first}
  dataset:
    train: {sources: [{name: rows, configMap: {name: rows, key: train.jsonl}}, {name: more, claim: {name: elsewhere}}]}
  workspace: {claimName: base}
---
apiVersion: hone.dev/v1alpha1
kind: ModelDeployment
metadata: {name: served}
spec:
  model: {jobRef: {name: second}}
  pod: {imagePullSecrets: [{name: judge}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: base}
---
apiVersion: v1
kind: Secret
metadata: {name: judge}
"""
KUSTOMIZATION = """
namePrefix: team-
resources: [jobs.yaml]
configurations: [kustomizeconfig.yaml]
configMapGenerator: [{name: rows, literals: ["train.jsonl={}"]}]
"""


def test_the_list_of_references_is_fresh() -> None:
    assert gitops.FILE.read_text() == gitops.render(), "run `python -m dev.gitops`"


def test_every_field_that_is_called_a_name_is_known() -> None:
    listed = {(kind, path) for _, kind, path in gitops.references()}
    others = {path for kind, path in gitops.fields() if path.endswith("/name") and (kind, path) not in listed}
    assert others == set(gitops.NO_OBJECT)


def test_kustomize_changes_names_where_they_are_used(tmp_path: Path) -> None:
    (tmp_path / "jobs.yaml").write_text(JOBS)
    (tmp_path / "kustomization.yaml").write_text(KUSTOMIZATION)
    (tmp_path / "kustomizeconfig.yaml").write_text(gitops.FILE.read_text())
    render = [command("kubectl"), "kustomize", str(tmp_path)]
    result = subprocess.run(render, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    objects = {obj["metadata"]["name"]: obj for obj in yaml.safe_load_all(result.stdout)}
    (rows,) = (name for name, obj in objects.items() if obj["kind"] == "ConfigMap")
    first, second, served = (objects[f"team-{name}"]["spec"] for name in ("first", "second", "served"))
    assert rows.startswith("team-rows-")
    assert first["dataset"]["train"]["configMap"]["name"] == rows
    assert first["model"]["claim"]["name"] == second["workspace"]["claimName"] == "team-base"
    assert first["evaluation"]["judge"]["apiKeySecretRef"]["name"] == "team-judge"
    assert second["model"]["jobRef"]["name"] == second["checkpoint"]["continueFrom"] == "team-first"
    sources = second["dataset"]["train"]["sources"]
    assert [source["name"] for source in sources] == ["rows", "more"], "what reports call them"
    assert (sources[0]["configMap"]["name"], sources[1]["claim"]["name"]) == (rows, "elsewhere")
    assert served["model"]["jobRef"]["name"] == "team-second"
    assert served["pod"]["imagePullSecrets"] == [{"name": "team-judge"}]


def test_the_manifests_are_yaml_and_no_release_is_named_that_does_not_exist() -> None:
    version = yaml.safe_load((ROOT / "charts/hone/Chart.yaml").read_text())["version"]
    for file in FOLDER.glob("*.yaml"):
        assert [*yaml.safe_load_all(file.read_text())], file
    for name in ("argocd-application.yaml", "flux.yaml"):
        assert f"v{version}" in (FOLDER / name).read_text()
