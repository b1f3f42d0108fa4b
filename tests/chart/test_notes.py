"""NOTES.txt, which helm prints after an installation: what it tells to run can be run by whoever has only the chart."""

import re
import shutil

import pytest
import yaml

from tests.chart.conftest import CHART
from tests.docs.support import TYPES, Manifest, problems

NOTES_AS_MANIFEST = 'text: {{ tpl (.Files.Get "notes.txt") . | toJson }}\n'
"""`helm template` leaves NOTES.txt out, so a copy of the chart renders it as a manifest."""


@pytest.fixture(scope="module")
def notes(helm, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The notes of a release `hone` in namespace `hone-system`."""
    copy = tmp_path_factory.mktemp("chart") / "hone"
    shutil.copytree(CHART, copy)
    shutil.move(copy / "templates/NOTES.txt", copy / "notes.txt")
    (copy / "templates/notes.yaml").write_text(NOTES_AS_MANIFEST)
    result = helm("template", "hone", str(copy), "--namespace", "hone-system", "--show-only", "templates/notes.yaml")
    assert result.returncode == 0, result.stderr
    text: str = yaml.safe_load(result.stdout)["text"]
    return text


def manifests_of(notes: str) -> list[Manifest]:
    """The manifests that the notes pipe to kubectl."""
    manifests = re.findall(r"<<EOF\n(.*?)^ *EOF$", notes, re.DOTALL | re.MULTILINE)
    return [yaml.safe_load(text) for text in manifests]


def test_they_name_no_file_that_a_user_of_the_chart_does_not_have(notes: str) -> None:
    files = re.findall(r"(?:-f|--filename)[ =](\S+)", notes) + re.findall(r"\S+\.ya?ml\b", notes)
    assert files
    assert set(files) == {"-"}


def test_they_show_a_valid_manifest_of_each_kind(notes: str) -> None:
    manifests = manifests_of(notes)
    assert [manifest["kind"] for manifest in manifests] == list(TYPES)
    assert [problems(manifest) for manifest in manifests] == [[], []]


def test_the_deployment_that_they_wait_for_is_one_that_the_chart_makes(notes: str, render) -> None:
    (name,) = re.findall(r"rollout status deployment/(\S+)", notes)
    assert name in {manifest["metadata"]["name"] for manifest in render() if manifest["kind"] == "Deployment"}
