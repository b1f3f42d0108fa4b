"""Tags follow from an image's inputs, and references from tags."""

from pathlib import Path

import pytest

from dev.images import catalog
from dev.images.catalog import IMAGES, Image, content_tag, is_loopback, reference, with_parents

IMAGE = Image("thing", "Dockerfile", ("lock", "code"), parent="base")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "code" / "deep").mkdir(parents=True)
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "lock").write_text("a==1\n")
    (tmp_path / "code" / "a.py").write_text("a = 1\n")
    (tmp_path / "code" / "deep" / "b.py").write_text("b = 2\n")
    return tmp_path


def tag(tree: Path, parent: str = "0" * 12) -> str:
    return content_tag(tree, IMAGE, parent)


def test_a_tag_is_12_hex_digits_and_stays_when_nothing_changes(tree: Path) -> None:
    first = tag(tree)
    assert len(first) == 12 and int(first, 16) >= 0
    assert tag(tree) == first


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda t: (t / "Dockerfile").write_text("FROM other\n"), id="the Dockerfile"),
        pytest.param(lambda t: (t / "lock").write_text("a==2\n"), id="a file"),
        pytest.param(lambda t: (t / "code" / "deep" / "b.py").write_text("b = 3\n"), id="a file deep in a folder"),
        pytest.param(lambda t: (t / "code" / "new.py").write_text(""), id="a new empty file"),
        pytest.param(lambda t: (t / "code" / "a.py").unlink(), id="a file less"),
        pytest.param(lambda t: (t / "code" / "a.py").rename(t / "code" / "c.py"), id="a file's name"),
        pytest.param(lambda t: (t / "lock").chmod(0o755), id="the executable bit"),
    ],
)
def test_a_tag_changes_with(tree: Path, change) -> None:
    before = tag(tree)
    change(tree)
    assert tag(tree) != before


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda t: (t / "other").write_text("x"), id="a file that is no input"),
        pytest.param(lambda t: (t / "code" / "__pycache__" / "a.pyc").write_bytes(b"x"), id="compiled Python"),
        pytest.param(lambda t: (t / "code" / ".a.py.swp").write_bytes(b"x"), id="an editor's hidden file"),
    ],
)
def test_a_tag_does_not_change_with(tree: Path, change) -> None:
    (tree / "code" / "__pycache__").mkdir()
    before = tag(tree)
    change(tree)
    assert tag(tree) == before


def test_a_tag_changes_with_the_parents(tree: Path) -> None:
    assert tag(tree, "1" * 12) != tag(tree, "2" * 12)


def test_moving_bytes_between_files_changes_the_tag(tree: Path) -> None:
    (tree / "code" / "a.py").write_text("xy")
    (tree / "lock").write_text("z")
    before = tag(tree)
    (tree / "code" / "a.py").write_text("x")
    (tree / "lock").write_text("yz")
    assert tag(tree) != before


def test_a_missing_input_is_named(tree: Path) -> None:
    (tree / "lock").unlink()
    with pytest.raises(FileNotFoundError, match="lock"):
        tag(tree)


def test_the_base_changes_with_the_image_it_is_taken_from(tree: Path) -> None:
    base = IMAGES["hone-base"]
    assert content_tag(tree, base, "") != content_tag(tree, base, "", base="docker.io/library/python:3.11")


def test_a_model_image_changes_with_the_model(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    image = Image("models", "Dockerfile", model="the base model")
    model = tmp_path_factory.mktemp("model")
    (model / "config.json").write_text("{}")
    before = content_tag(tree, image, "", model)
    (model / "config.json").write_text("{ }")
    assert content_tag(tree, image, "", model) != before
    with pytest.raises(ValueError, match="base model"):
        content_tag(tree, image, "")


def test_parents_come_before_what_is_made_from_them() -> None:
    names = [image.name for image in with_parents(["hone-trainer", "hone-vllm-cpu"])]
    assert names == ["hone-base", "hone-torch", "hone-trainer", "hone-vllm-cpu"]


def test_an_unknown_image_is_refused_with_the_choices() -> None:
    with pytest.raises(KeyError, match=r"no image 'hone-oprator': choose from .*hone-operator"):
        with_parents(["hone-oprator"])


def test_every_parent_and_every_input_of_the_catalog_exists() -> None:
    root = Path(catalog.__file__).parents[2]
    for image in IMAGES.values():
        assert not image.parent or image.parent in IMAGES
        if image.dockerfile:
            assert catalog.files(root, (image.dockerfile, *image.inputs))
            assert f"ARG {image.parent_argument}=" in (root / image.dockerfile).read_text()


@pytest.mark.parametrize(
    ("registry", "want"),
    [
        ("127.0.0.1:5005", "127.0.0.1:5005/hone/hone-operator:abc"),
        ("127.0.0.1:5005/", "127.0.0.1:5005/hone/hone-operator:abc"),
        ("ghcr.io/acme", "ghcr.io/acme/hone-operator:abc"),
        ("registry.example.com/a/b", "registry.example.com/a/b/hone-operator:abc"),
    ],
)
def test_references(registry: str, want: str) -> None:
    assert reference(registry, "hone-operator", "abc") == want


@pytest.mark.parametrize(
    ("registry", "want"),
    [
        ("127.0.0.1:5005", True),
        ("localhost:5000/team", True),
        ("localhost", True),
        ("[::1]:5000", True),
        ("ghcr.io/acme", False),
        ("localhost.example.com:5000", False),
    ],
)
def test_only_loopback_registries_speak_plain_http(registry: str, want: bool) -> None:
    assert is_loopback(registry) is want
