"""The cache of built tools: what names a build, and which builds are broken."""

import pytest

from dev.cluster import build
from dev.cluster.build import CHECKSUMS, Tool, checksum, key, linker_flags, problem


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "sources"
    (folder / "sub").mkdir(parents=True)
    (folder / "go.mod").write_text("module x\n")
    (folder / "go.sum").write_text("a v1\n")
    (folder / "sub" / "main.go").write_text("package main\n")
    return folder


@pytest.fixture
def built(tmp_path):
    folder = tmp_path / "built"
    folder.mkdir()
    (folder / "helm").write_bytes(b"binary")
    (folder / "helm").chmod(0o755)
    (folder / CHECKSUMS).write_text(f"{checksum(folder / 'helm')}  helm\n")
    return folder


TOOL = Tool({"x": "."})


def test_the_same_sources_have_the_same_key(sources):
    assert key(sources, TOOL, "go1.26.8") == key(sources, Tool({"x": "."}), "go1.26.8")


@pytest.mark.parametrize("change", ["go.sum", "go.mod", "sub/main.go", "go", "flags", "package"])
def test_whatever_decides_the_binary_changes_the_key(sources, change):
    before = key(sources, TOOL, "go1.26.8")
    tool, go = TOOL, "go1.26.8"
    if change == "go":
        go = "go1.26.9"
    elif change == "flags":
        tool = Tool({"x": "."}, {"main.version": "v2"})
    elif change == "package":
        tool = Tool({"x": "./cmd"})
    else:
        (sources / change).write_text("changed\n")
    assert key(sources, tool, go) != before


def test_files_that_go_does_not_read_leave_the_key(sources):
    before = key(sources, TOOL, "go1.26.8")
    (sources / "README.md").write_text("words")
    assert key(sources, TOOL, "go1.26.8") == before


def test_variables_are_set_by_the_linker():
    assert linker_flags(Tool({}, {"a.b": "v1", "a.c": "2"})) == "-s -w -X a.b=v1 -X a.c=2"


def test_a_whole_build_has_no_problem(built):
    assert problem(built, ["helm"]) is None


def _truncate(folder):
    (folder / "helm").write_bytes(b"bin")


def _make_unexecutable(folder):
    (folder / "helm").chmod(0o644)


def _delete(folder):
    (folder / "helm").unlink()


def _forget_checksums(folder):
    (folder / CHECKSUMS).unlink()


def _garble_checksums(folder):
    (folder / CHECKSUMS).write_text("\x00\x00\n")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_truncate, "checksum of helm is wrong"),
        (_make_unexecutable, "not executable"),
        (_delete, "missing"),
        (_forget_checksums, "no checksums"),
        (_garble_checksums, "checksum of helm is wrong"),
    ],
)
def test_a_broken_build_is_found(built, damage, words):
    damage(built)
    assert words in problem(built, ["helm"])


def test_damage_after_a_first_look_is_found_too(built):
    assert problem(built, ["helm"]) is None
    (built / "helm").write_bytes(b"bin\0ry")
    assert "checksum of helm is wrong" in problem(built, ["helm"])


def test_an_unchanged_build_is_read_only_once(built, monkeypatch):
    assert problem(built, ["helm"]) is None

    def unexpected(path):
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr(build, "checksum", unexpected)
    assert problem(built, ["helm"]) is None


def test_a_broken_build_is_thrown_away_and_built_again(built, monkeypatch, tmp_path):
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "folder", lambda name: built)
    rebuilt = []

    def rebuild(name, tool, where):
        assert not where.exists()
        rebuilt.append(name)

    monkeypatch.setattr(build, "_build", rebuild)
    build.ensure(["helm"])
    assert rebuilt == []
    _truncate(built)
    build.ensure(["helm"])
    assert rebuilt == ["helm"]


def test_every_tool_has_its_sources_with_locked_dependencies():
    for name in build.TOOLS:
        folder = build.paths.TOOL_SOURCES / name
        assert (folder / "go.mod").is_file(), name
        assert "require" not in (folder / "go.mod").read_text() or (folder / "go.sum").is_file(), name


def test_an_unknown_command_is_refused_with_the_known_ones():
    with pytest.raises(KeyError, match=r"'kustomize'.*helm.*kubectl"):
        build.tool_of("kustomize")
