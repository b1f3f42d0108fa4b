"""What a release consists of: one version everywhere, and the license."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import hone
from hone.core.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
CHART = yaml.safe_load((ROOT / "charts/hone/Chart.yaml").read_text())


def project(folder: str) -> dict[str, str]:
    """The table `project` of a pyproject.toml."""
    table: dict[str, str] = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    return table


@pytest.mark.parametrize(
    "version",
    [
        pytest.param(project(".")["version"], id="pyproject.toml"),
        pytest.param(project("trainer-image")["version"], id="trainer-image/pyproject.toml"),
        pytest.param(CHART["version"], id="chart"),
        pytest.param(CHART["appVersion"], id="appVersion"),
        pytest.param(Settings().trainer_image.rpartition(":")[2], id="trainer image"),
        pytest.param(Settings().server_cpu_image.rpartition(":")[2], id="server image"),
        pytest.param(re.findall(r"(?m)^## (\S+)", (ROOT / "CHANGELOG.md").read_text())[0], id="CHANGELOG.md"),
    ],
)
def test_everything_has_the_version_of_the_operator(version: str) -> None:
    assert version == hone.__version__


def test_the_license_is_named_where_packages_are_looked_up() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    names = [
        project(".")["license"],
        project("trainer-image")["license"],
        CHART["annotations"]["artifacthub.io/license"],
    ]
    assert set(names) == {"Apache-2.0"}
