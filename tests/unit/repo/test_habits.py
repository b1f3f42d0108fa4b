"""The repository's habits: what every file of it promises, checked on the files that Git tracks or would track."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from hone.api import crds

ROOT = Path(__file__).resolve().parents[3]
MAX_LINES, MAX_TEST_LINES = 500, 700
"""A file that is longer does more than one thing; a table of cases may be longer than code."""
GENERATED = ("crds/", "charts/hone/templates/crds/")
DATA = (".jsonl", ".lock", ".sum", ".png", ".svg")


def tracked(*suffixes: str) -> list[str]:
    """Files that Git tracks, or would track, by suffix; all of them without one."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return [name for name in names if name.endswith(suffixes or ("",)) and (ROOT / name).is_file()]


def text_of(name: str) -> str:
    """The file's text; bytes that are no UTF-8 are replaced."""
    return (ROOT / name).read_text(encoding="utf-8", errors="replace")


def test_operator_has_no_init_file_that_would_shadow_the_standard_library() -> None:
    assert not (ROOT / "operator/__init__.py").exists()
    assert not (ROOT / "operator/src/__init__.py").exists()


def test_every_python_file_says_what_it_is_in_its_first_line() -> None:
    silent = [name for name in tracked(".py") if not text_of(name).startswith('"""')]
    assert not silent, f"no docstring in the first line: {silent}"


def test_every_script_and_dockerfile_says_what_it_is_at_its_top() -> None:
    names = [*tracked(".sh", "Dockerfile"), "Makefile", ".ci/run"]
    silent = [name for name in names if not any(line.startswith("# ") for line in text_of(name).splitlines()[:2])]
    assert not silent, f"no comment at the top: {silent}"


def test_no_source_file_is_too_long_to_do_one_thing() -> None:
    limits = {name: MAX_TEST_LINES if "/test_" in name else MAX_LINES for name in tracked(".py")}
    long = {name: count for name in limits if (count := text_of(name).count("\n")) > limits[name]}
    assert not long


@pytest.mark.parametrize("name", tracked("requirements.lock", "torch.lock", "uv.lock"))
def test_a_lock_pins_every_package_by_version_and_hash_and_names_no_index(name: str) -> None:
    text = text_of(name)
    assert not re.search(r"https?://", text)
    # A requirement is one logical line: its name and version, and then its hashes on lines that continue it.
    packages = [
        line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith((" ", "#"))
    ]
    assert packages
    loose = [line.split()[0] for line in packages if "==" not in line or "--hash=sha256:" not in line]
    assert not loose, f"without version or hash: {loose}"


def test_no_file_holds_a_path_of_the_machine_it_was_written_on() -> None:
    # Written in two parts, so that this file does not hold them itself.
    private = [f"{Path.home()}/", f"{ROOT}/", *("/ro" + "ot/.cache", "/wo" + "rk/", "/opt/whe" + "els")]
    mentions = {
        name: path for name in tracked() if not name.endswith(DATA) for path in private if path in text_of(name)
    }
    assert not mentions


def test_no_file_names_a_package_index() -> None:
    # Which index or mirror is used is the machine's own affair: pip's, Go's and apt's settings.
    hosts = [
        "py" + "pi.org",
        "python" + "hosted.org",
        "proxy.go" + "lang.org",
        "registry.npm" + "js.org",
        "deb.deb" + "ian.org",
    ]
    mentions = {name: host for name in tracked() for host in hosts if host in text_of(name)}
    assert not mentions


def test_the_generated_files_are_fresh() -> None:
    stale = [str(path.relative_to(ROOT)) for path, text in crds.files().items() if path.read_text() != text]
    assert not stale, "run `make generate`"


def test_each_crd_is_small_enough_for_client_side_apply() -> None:
    # kubectl stores it in an annotation as JSON without spaces; in YAML it has many more bytes.
    too_big = {
        name: size
        for name, crd in crds.crds().items()
        if (size := len(json.dumps(crd, separators=(",", ":")).encode())) > crds.MAX_CRD_BYTES
    }
    assert not too_big


def makefile_targets() -> set[str]:
    """Names of the Makefile's rules."""
    return set(re.findall(r"^([a-z0-9-]+):", text_of("Makefile"), re.MULTILINE))


def test_every_make_target_has_a_line_in_make_help() -> None:
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    described = {line.split()[0] for line in listed.splitlines() if line.strip()}
    assert makefile_targets() == described


def test_every_make_target_is_phony() -> None:
    phony = re.search(r"^\.PHONY:((?:.*\\\n)*.*)$", text_of("Makefile"), re.MULTILINE)
    assert phony
    assert set(phony.group(1).replace("\\", " ").split()) == makefile_targets()


def test_every_command_of_the_makefile_exists() -> None:
    modules = set(re.findall(r"-m ((?:dev|hone)\.[a-z_.0-9]+)", text_of("Makefile")))
    assert modules
    missing = []
    for module in modules:
        base = ROOT / ("operator/src" if module.startswith("hone") else ".") / module.replace(".", "/")
        if not (base.with_suffix(".py").is_file() or (base / "__main__.py").is_file()):
            missing.append(module)
    assert not missing


def test_ci_runs_what_the_readme_names_as_the_test_command() -> None:
    assert "make test" in text_of("README.md")
    assert text_of(".ci/run").rstrip().splitlines()[-1].removeprefix("exec ") == "make test"
    assert (ROOT / ".ci/run").stat().st_mode & 0o111, ".ci/run is not executable"


def test_all_versions_of_the_project_are_the_same() -> None:
    versions = {
        name: match.group(1)
        for name in ("pyproject.toml", "trainer-image/pyproject.toml", "charts/hone/Chart.yaml")
        if (match := re.search(r'^version(?: = |: )"?([0-9][^"\s]*)"?$', text_of(name), re.MULTILINE))
    }
    assert len(versions) == 3
    assert len(set(versions.values())) == 1, versions
