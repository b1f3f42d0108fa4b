"""The guard of volumes: no link, device or pipe in a directory that users fill brings another file into a run."""

import ast
import io
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hone_trainer
from hone_trainer import finish, prepare
from hone_trainer.data.digest import MAX_TEMPLATES, TEMPLATES, tokenizer_digest
from hone_trainer.data.sources import find_source
from hone_trainer.models import directories
from hone_trainer.models.facts import model_digest, read_model
from hone_trainer.models.merging import copy_served_files
from hone_trainer.protocol import volumes
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.runconfig import RunConfig

SECRET = "HF_TOKEN=hf_this-must-not-leave-the-pod"


@pytest.fixture
def volume(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a model's volume in a pod, with the model in `base`; secrets and the workspace are elsewhere."""
    monkeypatch.setattr(volumes, "MOUNTS", str(tmp_path / "mnt"))
    shutil.copytree(tiny_model, tmp_path / "mnt/model/base")
    (tmp_path / "environ").write_text(SECRET)
    (tmp_path / "mnt/workspace/other-run").mkdir(parents=True)
    (tmp_path / "mnt/workspace/other-run/secret.jinja").write_text(SECRET)
    return tmp_path / "mnt/model"


def link(place: Path, target: str) -> None:
    place.unlink(missing_ok=True)
    place.symlink_to(target)


def below_a_directory(base: Path, secret: str) -> None:
    (base / TEMPLATES).mkdir()
    link(base / TEMPLATES / "a.jinja", secret)


def chain(base: Path, secret: str) -> None:
    link(base / "vocab.txt", "first")
    link(base / "first", "../second")
    link(base.parent / "second", secret)


def directory_chain(base: Path, secret: str) -> None:
    """A link to a directory of the volume that holds the link that leads out."""
    (base.parent / "shared").mkdir()
    link(base / TEMPLATES, "../shared")
    link(base.parent / "shared/a.jinja", secret)


def out_and_back(base: Path, secret: str) -> None:
    """It ends in the volume, but the way leads over a directory that others can change."""
    link(base / "vocab.txt", "../../../mnt/model/base/config.json")


def pipe(base: Path, secret: str) -> None:
    os.mkfifo(base / "vocab.txt")


def server_socket(base: Path, secret: str) -> None:
    here = Path.cwd()
    os.chdir(base)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("vocab.txt")
    finally:
        os.chdir(here)


ATTACKS: dict[str, Callable[[Path, str], None]] = {
    "an absolute link": lambda base, secret: link(base / "vocab.txt", secret),
    "a relative link": lambda base, secret: link(base / "vocab.txt", "../../../environ"),
    "a link to this process": lambda base, secret: link(base / "vocab.txt", "/proc/self/environ"),
    "a link with a detour": lambda base, secret: link(base / "chat_template.jinja", "./../base/../../.././environ"),
    "weights that are a link": lambda base, secret: link(base / "model.safetensors", secret),
    "a file that Hone does not read": lambda base, secret: link(base / "notes.md", secret),
    "a hidden link": lambda base, secret: link(base / ".cache", secret),
    "a dangling link": lambda base, secret: link(base / "vocab.txt", "/proc/12345678/environ"),
    "a link to the workspace": lambda base, secret: link(base / TEMPLATES, "../../workspace/other-run"),
    "a link below a directory": below_a_directory,
    "a chain": chain,
    "a chain of directories": directory_chain,
    "out and back": out_and_back,
    "a loop": lambda base, secret: link(base / "vocab.txt", "vocab.txt"),
    "a device": lambda base, secret: link(base / "vocab.txt", "/dev/zero"),
    "a pipe": pipe,
    "a socket": server_socket,
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("read", [read_model, "check"])
def test_a_model_that_leads_out_of_its_volume_is_refused(volume: Path, attack: str, read: Any) -> None:
    ATTACKS[attack](volume / "base", str(volume.parents[1] / "environ"))
    with pytest.raises(BadInput) as refused:
        if read == "check":
            volumes.check_tree(volume / "base", "spec.teacher")
        else:
            read(str(volume / "base"))
    assert SECRET not in str(refused.value)
    assert refused.value.field == ("spec.teacher" if read == "check" else "spec.model")
    assert refused.value.hint


@pytest.mark.parametrize(
    "path", ["../workspace/other-run", "base/../../workspace/other-run", "../../etc", "away/other-run"]
)
def test_the_path_of_a_model_does_not_lead_out_either(volume: Path, path: str) -> None:
    link(volume / "away", "../workspace")
    with pytest.raises(BadInput, match="leads out of its volume") as refused:
        read_model(str(volume / path))
    assert "secret" not in str(refused.value)


def test_links_within_the_volume_are_followed_as_hugging_faces_cache_needs(volume: Path, tiny_model: Path) -> None:
    blobs, snapshot = volume / "models--a--b/blobs", volume / "models--a--b/snapshots/0123"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted((volume / "base").iterdir())):
        file.rename(blobs / str(number))
        link(snapshot / file.name, f"../../blobs/{number}")
    link(volume / "current", "models--a--b/snapshots/0123")
    link(volume / "absolute", str(snapshot))
    plain = read_model(str(tiny_model))
    for name in ("models--a--b/snapshots/0123", "current", "absolute"):
        facts = read_model(str(volume / name))
        assert (model_digest(facts.directory), facts.shapes) == (model_digest(plain.directory), plain.shapes)
    copy_served_files(snapshot, volume / "base", "spec.model")
    assert (volume / "base/tokenizer.json").read_bytes() == (tiny_model / "tokenizer.json").read_bytes()
    assert not (volume / "base/tokenizer.json").is_symlink()


def test_on_a_volume_that_runs_share_a_link_stays_within_its_model(volume: Path) -> None:
    merged = volume.parent / "workspace/models/1"
    shutil.copytree(volume / "base", merged)
    link(merged / "vocab.txt", "../../other-run/secret.jinja")
    with pytest.raises(BadInput, match=r"vocab.txt leads out of its volume"):
        read_model(str(merged))


@pytest.mark.parametrize("which", ["model", "teacher", "rewardModel", "adapter", "base"])
def test_prepare_refuses_each_kind_of_model_before_it_reads_any_data(
    volume: Path, make_config: Any, tmp_path: Path, which: str
) -> None:
    hostile = volume.parent / which / "base"
    if which != "model":
        shutil.copytree(volume / "base", hostile)
    link(hostile / "vocab.txt", "/proc/self/environ")
    config = make_config(paths={"model": str(volume / "base")})
    config["objective"] = "Distillation" if which == "teacher" else "SFT"
    field = {"teacher": "spec.teacher", "rewardModel": "spec.reward.model"}.get(which, "spec.model")
    if which in ("adapter", "base"):
        parts = {"adapter": str(volume / "base"), "base": str(volume / "base"), which: str(hostile)}
        config["merges"] = [{"field": "spec.model", "merged": str(tmp_path / "mnt/workspace/models/1"), **parts}]
        config["paths"]["model"] = config["merges"][0]["merged"]
    else:
        config["paths"][which] = str(hostile)
    config["data"]["train"] = str(tmp_path / "is-not-read")
    with pytest.raises(BadInput, match=r"vocab.txt leads out of its volume, to /proc/self/environ") as refused:
        prepare.prepare(RunConfig.from_dict(config))
    assert refused.value.field == field


def test_every_model_of_a_run_is_checked() -> None:
    names = {name for name in RunConfig.model_fields["paths"].annotation.model_fields if name not in ("run",)}
    assert set(directories.FIELDS) == names - set(volumes.OWN_VOLUMES)


@pytest.mark.parametrize("path", ["saved", "saved/part.jsonl", "saved/*", "rows.jsonl"])
def test_data_are_not_read_through_links_either(volume: Path, path: str) -> None:
    data = volume.parent / "data/train"
    (data / "saved").mkdir(parents=True)
    (volume.parents[1] / "environ").write_text('{"splits": ["' + SECRET + '"]}')
    for name in ("saved/dataset_dict.json", "saved/part.jsonl", "rows.jsonl"):
        link(data / name, str(volume.parents[1] / "environ"))
    with pytest.raises(BadInput, match="leads out of its volume") as refused:
        find_source("train", str(data / path), mount=data)
    assert SECRET not in str(refused.value)


def test_data_that_are_replaced_by_a_link_after_the_check_are_not_read(volume: Path, tmp_path: Path) -> None:
    data = volume.parent / "data/train"
    data.mkdir(parents=True)
    (data / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    file = find_source("train", str(data), mount=data).files[0]
    link(data / "rows.jsonl", str(tmp_path / "environ"))
    for opened in (file.open, file.open_raw):
        with pytest.raises(BadInput, match="leads out"):
            opened()


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "chat_template.jinja", "generation_config.json", f"{TEMPLATES}/a.jinja"]
)
def test_what_becomes_a_link_after_the_check_is_not_copied(volume: Path, tmp_path: Path, name: str) -> None:
    base, artifact = volume / "base", tmp_path / "artifact"
    (base / TEMPLATES).mkdir()
    artifact.mkdir()
    volumes.check_tree(base, "spec.model")
    link(base / name, str(tmp_path / "environ"))
    with pytest.raises(BadInput, match="leads out of its volume"):
        copy_served_files(base, artifact, "spec.model")
    assert not any(SECRET in file.read_text() for file in artifact.rglob("*.j*"))


def test_what_becomes_a_link_between_look_and_open_is_not_read(
    volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    located = volumes.locate

    def then_replaced(directory: Path, name: str, *rest: Any) -> Path:
        place = located(directory, name, *rest)
        link(directory / name, str(tmp_path / "environ"))
        return place

    monkeypatch.setattr(volumes, "locate", then_replaced)
    with pytest.raises(BadInput, match="was replaced while it was read"):
        volumes.read_file(volume / "base", "config.json", "spec.model", 1 << 20)


def test_only_known_files_of_limited_size_are_copied(volume: Path, tmp_path: Path) -> None:
    base, artifact = volume / "base", tmp_path / "artifact"
    artifact.mkdir()
    (base / TEMPLATES).mkdir()
    for name in ("notes.md", "model.py", f"{TEMPLATES}/tool.jinja", f"{TEMPLATES}/run.py"):
        (base / name).write_text("x")
    copy_served_files(base, artifact, "spec.model")
    copied = {file.relative_to(artifact).as_posix() for file in artifact.rglob("*") if file.is_file()}
    assert f"{TEMPLATES}/tool.jinja" in copied
    assert not copied & {"notes.md", "model.py", f"{TEMPLATES}/run.py", "config.json", "model.safetensors"}
    (base / "chat_template.jinja").write_text("x" * ((1 << 20) + 1))
    with pytest.raises(BadInput, match=r"chat_template.jinja has more than 1048576 bytes"):
        copy_served_files(base, artifact, "spec.model")


def test_the_number_of_files_and_templates_is_bounded(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = volume / "base"
    (base / TEMPLATES).mkdir()
    for number in range(MAX_TEMPLATES + 1):
        (base / TEMPLATES / f"{number}.jinja").touch()
    with pytest.raises(BadInput, match="65 chat templates"):
        tokenizer_digest(base)
    monkeypatch.setattr(volumes, "MAX_ENTRIES", 60)
    with pytest.raises(BadInput, match="more than 60 files"):
        volumes.check_tree(base, "spec.model")


def test_what_cannot_be_printed_is_escaped_in_messages(volume: Path) -> None:
    hostile = "x\n\x1b[2J\u202e\udcff" + "y" * 150
    link(volume / "base" / hostile, "/etc/\x07")
    with pytest.raises(BadInput) as refused:
        volumes.check_tree(volume / "base", "spec.model")
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 400
    assert "\\x1b[2J\\u202e\\udcff" in refused.value.message


@pytest.mark.slow
def test_train_and_finish_check_the_models_again(
    volume: Path, make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig.from_dict(make_config(paths={"model": str(volume / "base")}))
    prepare.prepare(config)
    link(volume / "base/vocab.txt", "/proc/self/environ")
    with pytest.raises(BadInput, match=r"vocab.txt leads out"):
        finish._export(config, None)
    from hone_trainer import train
    from hone_trainer.protocol.status import StatusDir

    (tmp_path / "run.json").write_text(config.to_json())
    monkeypatch.setenv("HONE_RUN_CONFIG", str(tmp_path / "run.json"))
    with pytest.raises(BadInput, match=r"vocab.txt leads out"):
        train._train(0, StatusDir(tmp_path))


OPENERS = {
    *("open", "open_code", "read_text", "read_bytes", "memory_map", "copyfile", "copy", "copy2", "copytree", "link"),
    *("symlink_to", "load_file", "safe_open", "ParquetFile"),
}
OPENS_ITS_OWN = {
    "analyze": "the mounted keys",
    "data/build": "the prepared data that this process writes",
    "data/digest": "the trainer's own code; users' files through the guard",
    "data/journal": "the prepared data that this run writes",
    "data/kinds": "users' files, by the guard's `open_file`",
    "data/pack": "the prepared data, on the workspace",
    "data/prepared": "the prepared data, on the workspace",
    "data/readers": "what `DataFile` has opened",
    "check": "the log of the step that it runs",
    "data/stored_survey": "what prepare has stored on the workspace",
    "data/workers": "/proc/self/status",
    "finish": "the run's own report",
    "launcher/stack_traces": "what the ranks wrote",
    "launcher/tunnel": "the run's key, in the run's own directory",
    "objectives/answer_server": "what a server of this pod replies",
    "downloads/download": "what it has downloaded, in directories of its own on the workspace",
    "downloads/https": "the same",
    "downloads/remote": "the same",
    "downloads/s3": "the same",
    "planning/memory_fallback": "the run's own directory",
    "scores/speed": "what a server replies",
    "training/continuation": "files that a checkpoint's list of digests names, and no links",
    "protocol/files": "temporary files that it makes",
    "protocol/host": "/proc and /sys",
    "protocol/manifest": "the artifact, each file by its directory's descriptor and without following links",
    "protocol/planfile": "the run's own directory",
    "protocol/probe": "the run's own directory",
    "protocol/runconfig": "the mounted RunConfig",
    "protocol/searchfile": "the run's own directory",
    "protocol/shared": "its lock, without following a link",
    "protocol/status": "what the ranks wrote",
    "protocol/volumes": "the guard itself",
    "publishing/hub": "what `CopiedFile` opens by the guard, and what it has downloaded",
    "publishing/oci": "what `CopiedFile` opens by the guard",
    "publishing/s3": "what `CopiedFile` opens by the guard",
    "rewards/code": "the code of a user's function, as prepare has stored it",
    "protocol/history": "the run's own directory",
    "report": "the report that whoever runs it names",
    "reports/job": "the same",
    "reports/page": "the template that is part of the program",
    "training/validation": "the run's own directory",
    "scores/questions": "what the server replies",
    "search/conduct": "the run's own directory",
    "search/study": "the run's own directory",
    "scores/rows": "the cached scores, on the workspace",
    "train": "the file for this rank's stacks",
    "training/checkpoint": "the run's own directory",
}
"""Modules of the trainer that open files by themselves, and which: none of them is on a volume that users fill."""


def test_only_the_guard_opens_what_users_fill() -> None:
    root = Path(hone_trainer.__file__).parent
    opening = set()
    for path in root.rglob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = {each.attr if isinstance(each, ast.Attribute) else getattr(each, "id", "") for each in calls}
        if names & (OPENERS - {"copy"}) or ("copy" in names and "shutil" in path.read_text()):
            opening.add(path.relative_to(root).with_suffix("").as_posix())
    assert opening == set(OPENS_ITS_OWN)
    assert all(isinstance(reason, str) and reason for reason in OPENS_ITS_OWN.values())


def test_a_compressed_file_is_read_from_the_descriptor_that_was_checked(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "a", "completion": "b"}\n'))
    file = find_source("train", str(tmp_path), mount=tmp_path).files[0]
    with file.open() as stream:
        assert isinstance(stream, io.IOBase)
        assert stream.read() == b'{"prompt": "a", "completion": "b"}\n'
