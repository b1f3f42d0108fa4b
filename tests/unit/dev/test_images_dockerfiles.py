"""What every Dockerfile must keep to: a public default base, a user that is not root, locked packages."""

import re
from pathlib import Path

import pytest

from dev import locks
from dev.images.catalog import IMAGES

ROOT = Path(__file__).parents[3]
DOCKERFILES = [image.dockerfile for image in IMAGES.values() if image.dockerfile]
LOCKS = [ROOT / lock.output for lock in locks.LOCKS]


def instructions(path: str) -> list[str]:
    text = (ROOT / path).read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("path", DOCKERFILES)
def test_its_last_user_is_65532(path: str) -> None:
    users = [line for line in instructions(path) if line.startswith("USER")]
    assert users[-1] == "USER 65532:65532"


@pytest.mark.parametrize("path", DOCKERFILES)
def test_its_base_is_an_argument_with_a_public_default(path: str) -> None:
    argument, source, *_ = instructions(path)
    name, _, default = argument.removeprefix("ARG ").partition("=")
    assert source == f"FROM ${{{name}}}"
    assert default.startswith(("docker.io/library/", "ghcr.io/hone-dev/"))


@pytest.mark.parametrize("path", DOCKERFILES)
def test_packages_come_from_locks_only(path: str) -> None:
    commands = [line for line in instructions(path) if line.startswith("RUN")]
    assert not [line for line in commands if re.search(r"\b(pip|uv) ", line)]
    assert all(re.search(r"install-lock \S+\.lock ", line) for line in commands if "install-lock" in line)


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_lock_has_hashes_and_names_no_index_and_no_machine(path: Path) -> None:
    text = path.read_text()
    assert "--hash=sha256:" in text
    assert "://" not in text
    assert "--index" not in text and "--find-links" not in text
    assert " @ " not in text and "file:" not in text


def pins(path: str) -> dict[str, str]:
    """Version of each package that a lock names."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / path).read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", ["trainer-image/requirements.lock", "dev/images/vllm-cpu/requirements.lock"])
def test_images_on_the_torch_layer_pin_the_same_versions_as_it(path: str) -> None:
    torch, other = pins("trainer-image/torch.lock"), pins(path)
    assert "torch" in torch
    assert torch.items() <= other.items()


def test_the_dev_environment_pins_the_same_versions_as_the_images() -> None:
    dev = pins("dev/requirements.lock")
    for lock in ("operator/requirements.lock", "trainer-image/requirements.lock"):
        assert pins(lock).items() <= dev.items()
