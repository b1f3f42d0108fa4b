"""The images: what each is built from, and the tag that follows from it. Pure except for reading the inputs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dev.uv import short_hash

# Debian's Python and what wheels expect to find installed.
BASE_PACKAGES = ("python3", "ca-certificates", "libgomp1")
BASE_SUITE = "bookworm"
_INSTALL = ("dev/images/install-lock", "dev/uv.lock")


@dataclass(frozen=True)
class Image:
    """One image.

    name: its name in the registry.
    dockerfile: path of its Dockerfile in the tree, or "" for the base, which is made from Debian packages.
    inputs: files and folders of the tree whose bytes decide its content, in addition to the Dockerfile.
    parent: name of the image that its FROM line takes, by the build argument `parent_argument`.
    model: name in MODELS of the model whose folder is the build context instead of the tree, or "".
    published: whether anything but other images' builds uses it; these are what `build` makes unless names are given.
    """

    name: str
    dockerfile: str = ""
    inputs: tuple[str, ...] = ()
    parent: str = ""
    parent_argument: str = "BASE_IMAGE"
    model: str = ""
    published: bool = True


MODELS: Mapping[str, str] = {"the base model": "dev.basemodel", "SmolLM2": "dev.smollm2"}
"""The module that builds each model of an image."""

IMAGES: Mapping[str, Image] = {
    image.name: image
    for image in (
        Image("hone-base", published=False),
        Image(
            "hone-operator",
            "operator/Dockerfile",
            (*_INSTALL, "operator/requirements.lock", "operator/src/hone"),
            parent="hone-base",
        ),
        Image(
            "hone-torch",
            "trainer-image/torch.Dockerfile",
            (*_INSTALL, "trainer-image/torch.lock"),
            parent="hone-base",
            published=False,
        ),
        Image(
            "hone-trainer",
            "trainer-image/Dockerfile",
            (
                *(*_INSTALL, "trainer-image/requirements.lock", "trainer-image/src/hone_trainer"),
                *("operator/src/hone/__init__.py", "operator/src/hone/contract"),
            ),
            parent="hone-torch",
            parent_argument="TORCH_IMAGE",
        ),
        Image(
            "hone-vllm-cpu",
            "dev/images/vllm-cpu/Dockerfile",
            (*_INSTALL, "dev/images/vllm-cpu/requirements.lock"),
            parent="hone-torch",
            parent_argument="TORCH_IMAGE",
        ),
        Image("hone-base-models", "dev/images/base-models/Dockerfile", parent="hone-base", model="the base model"),
        Image("hone-smollm2", "dev/images/smollm2/Dockerfile", parent="hone-base", model="SmolLM2"),
    )
}


def with_parents(names: Iterable[str]) -> list[Image]:
    """The named images and all they are made from, each once, parents first.

    Raises KeyError with a message for a name that is not in the catalog.
    """
    ordered: list[Image] = []

    def visit(name: str) -> None:
        if name not in IMAGES:
            raise KeyError(f"there is no image {name!r}: choose from {', '.join(IMAGES)}")
        image = IMAGES[name]
        if image in ordered:
            return
        if image.parent:
            visit(image.parent)
        ordered.append(image)

    for name in names:
        visit(name)
    return ordered


def files(root: Path, inputs: Iterable[str]) -> list[Path]:
    """The files among and under the inputs, sorted; compiled Python and hidden files do not count.

    Raises FileNotFoundError for an input that does not exist.
    """
    files: set[Path] = set()
    for name in inputs:
        path = root / name
        if path.is_file():
            files.add(path)
        elif path.is_dir():
            files.update(file for file in path.rglob("*") if file.is_file() and _counts(file.relative_to(path)))
        else:
            raise FileNotFoundError(f"{path}: an image is made from it, but it does not exist")
    return sorted(files)


def _counts(path: Path) -> bool:
    return not any(part == "__pycache__" or part.startswith(".") for part in path.parts)


def content_tag(root: Path, image: Image, parent_tag: str, model: Path | None = None, base: str = "") -> str:
    """The image's tag: 12 hex digits that change exactly when its inputs, their names or modes, or its parent change.

    base: the image that BASE_IMAGE names instead of Debian packages, or "".
    """
    if not image.dockerfile:
        return short_hash(base.encode(), BASE_SUITE.encode(), *(package.encode() for package in BASE_PACKAGES))
    parts = [image.name.encode(), parent_tag.encode()]
    inputs = [(root, file) for file in files(root, (image.dockerfile, *image.inputs))]
    if image.model:
        if model is None:
            raise ValueError(f"{image.name} needs the folder of {image.model}")
        inputs += [(model, file) for file in files(model, (".",))]
    for origin, file in inputs:
        executable = b"x" if file.stat().st_mode & 0o100 else b"-"
        parts += [file.relative_to(origin).as_posix().encode(), executable, file.read_bytes()]
    return short_hash(*parts)


def reference(registry: str, name: str, tag: str) -> str:
    """The full name of an image, such as "127.0.0.1:5005/hone/hone-operator:0123456789ab".

    registry: host, port and any path. The folder `hone` is put in for a bare host; ghcr.io/acme/x is taken as it is.
    """
    prefix = registry.rstrip("/")
    if "/" not in prefix:
        prefix += "/hone"
    return f"{prefix}/{name}:{tag}"


def is_loopback(registry: str) -> bool:
    """Whether the registry is on this machine, and so speaks plain HTTP."""
    host = registry.split("/")[0]
    return host.startswith(("127.", "localhost:", "[::1]")) or host == "localhost"
