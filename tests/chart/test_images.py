"""The images that `make images` pushes are those that the chart asks for, with the values file that it writes."""

import json
import os
import sys
from pathlib import Path

import pytest

from dev import uv
from dev.basemodel import cache as basemodel
from dev.images import __main__ as images
from dev.images import storage, values
from dev.smollm2 import cache as smollm2
from tests.chart.conftest import Render, env_of, pod_of

UPSTREAM = "HONE_SERVER_IMAGE"
"""vLLM for GPUs, which its makers publish."""
NOT_IN_THE_CHART = {"hone-base-models", "hone-smollm2"}
"""What the demo copies its base model from."""


class Buildah:
    """A storage that has every image already, and records what is pushed."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.pushed: list[str] = []

    def prepare(self) -> None:
        """Nothing is to be prepared."""

    def has(self, image: str) -> bool:
        return True

    def local(self, name: str, tag: str) -> str:
        return f"{name}:{tag}"

    def last_line(self) -> str:
        return ""

    def push(self, image: str, reference: str, loopback: bool) -> None:
        self.pushed.append(reference)


@pytest.fixture
def buildah(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Buildah:
    """Nothing is built and no registry is reached; the values file goes to a folder of the test's own."""
    store = Buildah(tmp_path / "log")
    monkeypatch.setenv("HONE_CACHE", str(tmp_path))
    monkeypatch.setattr(values, "file", lambda: tmp_path / "image-values.json")
    monkeypatch.setattr(values, "command", str)
    for model in (basemodel, smollm2):
        monkeypatch.setattr(model, "find", lambda: tmp_path / "model")
    monkeypatch.setattr(storage, "check_commands", lambda base: None)
    monkeypatch.setattr(storage, "in_registry", lambda reference: reference in store.pushed)
    monkeypatch.setattr(images, "storage_for", lambda name: store)
    (tmp_path / "model").mkdir()
    return store


def build(monkeypatch: pytest.MonkeyPatch, registry: str, *names: str) -> None:
    """`make images` with that REGISTRY, or of some images."""
    monkeypatch.setitem(os.environ, "REGISTRY", registry)
    monkeypatch.setattr(sys, "argv", ["dev.images", "build", *names])
    images.main()


def asked_for(render: Render) -> set[str]:
    """The images that a release with the written values file names, but for the one that is not built here."""
    manifests = render(json.loads(values.file().read_text()))
    named = {key: value for key, value in env_of(manifests).items() if key.endswith("_IMAGE") and key != UPSTREAM}
    (container,) = pod_of(manifests)["containers"]
    return {container["image"], *named.values()}


@pytest.mark.parametrize("registry", ["registry.example.com/team", "ghcr.io/acme/models/", "127.0.0.1:5005"])
def test_what_is_pushed_is_what_the_chart_asks_for(
    registry: str, buildah: Buildah, render: Render, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "check_registry", lambda address: None)
    build(monkeypatch, registry)
    published = {name for name, image in images.IMAGES.items() if image.published} - NOT_IN_THE_CHART
    pushed = {reference for reference in buildah.pushed if reference.rpartition(":")[0].split("/")[-1] in published}
    assert len(pushed) == len(published) == 3
    assert asked_for(render) == pushed
    assert all(reference.startswith(registry) for reference in pushed)


def test_an_image_that_is_built_alone_joins_those_that_were_built_before(
    buildah: Buildah, render: Render, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(monkeypatch, "registry.example.com/team")
    before = asked_for(render)
    buildah.pushed.clear()
    build(monkeypatch, "registry.example.com/team", "hone-operator")
    assert asked_for(render) == before


def test_it_says_how_to_install_with_the_values_file(
    buildah: Buildah, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build(monkeypatch, "registry.example.com/team")
    assert str(values.file()) in capsys.readouterr().err


def test_the_readme_names_the_command_that_is_printed() -> None:
    assert values.command(values.file()) in (uv.ROOT / "README.md").read_text(encoding="utf-8")


def test_the_values_name_registry_repository_and_tag_of_each_image() -> None:
    names = {name: f"127.0.0.1:5005/hone/{name}:0123456789ab" for name in values.KEYS}
    image = values.values(names)["image"]
    assert set(image) == {"operator", "trainer", "serverCpu"}
    assert image["operator"] == {
        "registry": "127.0.0.1:5005",
        "repository": "hone/hone-operator",
        "tag": "0123456789ab",
        "digest": "",
    }
