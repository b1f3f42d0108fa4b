"""buildah's storage: broken storage is recognized and emptied."""

import json
from pathlib import Path

import pytest

from dev.images.storage import Storage


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """A storage whose records name one layer and one image of it."""
    monkeypatch.setenv("HONE_CACHE", str(tmp_path))
    store = Storage(tmp_path / "log")
    root = store.root / "root"
    (root / "overlay" / "a" / "diff").mkdir(parents=True)
    for kind, records in (("layers", [{"id": "a"}]), ("images", [{"id": "i", "layer": "a"}, {"id": "scratch"}])):
        (root / f"overlay-{kind}").mkdir()
        (root / f"overlay-{kind}" / f"{kind}.json").write_text(json.dumps(records))
    return store


def test_a_storage_with_all_its_layers_is_whole(store: Storage) -> None:
    assert store._whole()


def test_a_storage_that_was_never_used_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path))
    assert Storage(tmp_path / "log")._whole()


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda root: (root / "overlay/a/diff").rmdir(), id="a layer's files are gone"),
        pytest.param(lambda root: (root / "overlay-layers/layers.json").write_text("[{"), id="a record is cut off"),
        pytest.param(lambda root: (root / "overlay-layers/layers.json").unlink(), id="the list of layers is gone"),
        pytest.param(lambda root: (root / "overlay-images/images.json").write_text("{}1"), id="a record is no JSON"),
    ],
)
def test_a_storage_is_broken_when(store: Storage, harm) -> None:
    harm(store.root / "root")
    assert not store._whole()


def test_cleaning_removes_the_storage(store: Storage) -> None:
    store.clean()
    assert not store.root.exists()


def test_a_failed_command_ends_with_the_end_of_its_output_and_the_log(store: Storage) -> None:
    with pytest.raises(SystemExit, match=r"(?s)`sh` failed with status 3 .*/log.*out of paper"):
        store.run("sh", "-c", "echo out of paper >&2; exit 3")
