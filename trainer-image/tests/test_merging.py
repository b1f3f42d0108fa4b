"""Adapters that are merged with their bases: another job's in prepare, and this run's own in finish."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny

from hone.contract.methods import MethodType
from hone.contract.report import Report
from hone.contract.runconfig import Merge
from hone_trainer import finish, train
from hone_trainer.methods import lora
from hone_trainer.models import facts, merging
from hone_trainer.models.architectures import CHAT
from hone_trainer.models.facts import load_tokenizer, model_digest, read_model
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.status import StatusDir
from hone_trainer.training import checkpoint

pytestmark = pytest.mark.train


def make_adapter(model: Path, directory: Path) -> Path:
    """A LoRA adapter over the model with weights that are no zeros, as finish writes one."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(model)
    adapted = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    adapted.peft_config["default"].base_model_name_or_path = "hf://example/tiny"
    adapted.save_pretrained(directory)
    merging.copy_served_files(model, directory, "spec.model")
    (directory / "chat_template.jinja").write_text("{{ messages[0].content }}")
    return directory


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model, and an adapter over it."""
    root = tmp_path_factory.mktemp("parts")
    tiny.make_model(root / "model")
    return root / "model", make_adapter(root / "model", root / "adapter")


def merge_of(parts: tuple[Path, Path], root: Path, digest: str | None = None) -> Merge:
    """What prepare is told."""
    base, adapter = map(str, parts)
    merged = str(root / "models/1")
    return Merge(field="spec.model", adapter=adapter, base=base, base_digest=digest, merged=merged)


def logits(model: object) -> object:
    """What a model says of a few tokens."""
    import torch

    with torch.no_grad():
        return model.eval()(torch.arange(1, 9).unsqueeze(0)).logits  # type: ignore[operator]


def test_the_merged_model_says_what_base_and_adapter_say(parts: tuple[Path, Path], tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    merge = merge_of(parts, tmp_path, model_digest(parts[0]))
    merging.ensure_merged(merge)
    base = AutoModelForCausalLM.from_pretrained(parts[0])
    before = logits(base)
    both = logits(PeftModel.from_pretrained(base, parts[1]))
    merged = logits(AutoModelForCausalLM.from_pretrained(merge.merged))
    assert torch.allclose(merged, both, atol=1e-5)
    assert not torch.allclose(merged, before, atol=1e-2), "the adapter does something"


def test_what_was_merged_is_a_model_like_any_other(parts: tuple[Path, Path], tmp_path: Path) -> None:
    merge = merge_of(parts, tmp_path)
    merging.ensure_merged(merge)
    into = Path(merge.merged)
    assert read_model(merge.merged).parameters == read_model(str(parts[0])).parameters
    assert load_tokenizer(into).chat_template == "{{ messages[0].content }}", "the adapter's, not the base's"
    assert [path.name for path in into.parent.iterdir()] == ["1"], "nothing half-made is left"
    for path in into.iterdir():
        assert str(parts[0]).encode() not in path.read_bytes(), path.name


def test_each_weight_is_rounded_once(parts: tuple[Path, Path], tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(parts[0]).to(torch.bfloat16).save_pretrained(tmp_path / "half")
    shutil.copytree(tmp_path / "half", tmp_path / "exact")
    exact = AutoModelForCausalLM.from_pretrained(tmp_path / "half", dtype=torch.float32)
    exact.save_pretrained(tmp_path / "exact")
    once = merging.merged_model(AutoModelForCausalLM, tmp_path / "exact", parts[1]).to(torch.bfloat16).state_dict()
    weights = merging.merged_model(AutoModelForCausalLM, tmp_path / "half", parts[1]).state_dict()
    assert all(weight.dtype == torch.bfloat16 for weight in weights.values())
    assert all(torch.equal(weights[name], weight) for name, weight in once.items())


def test_it_is_done_once(parts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merge = merge_of(parts, tmp_path)
    merging.ensure_merged(merge)
    monkeypatch.setattr(merging, "merged_model", lambda *_: pytest.fail("it was done again"))
    merging.ensure_merged(merge)


def change_byte(path: Path) -> None:
    """Change a file, but not its size."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def replace_by_link(path: Path) -> None:
    """A link to the same content."""
    elsewhere = path.parent.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def swap(merged: Path) -> None:
    """Another model with a manifest that fits it."""
    manifest_file = merged / merging.MANIFEST_FILE
    written = json.loads(manifest_file.read_text())
    manifest_file.write_text(json.dumps({**written, "madeOf": "sha256:1 sha256:2"}))


POISONS: dict[str, Callable[[Path], object]] = {
    "changed weights": lambda at: change_byte(at / "model.safetensors"),
    "changed tokenizer": lambda at: change_byte(at / "tokenizer.json"),
    "added code": lambda at: (at / "modeling.py").write_text("import os"),
    "removed file": lambda at: (at / "chat_template.jinja").unlink(),
    "link": lambda at: replace_by_link(at / "model.safetensors"),
    "no manifest": lambda at: (at / merging.MANIFEST_FILE).unlink(),
    "another model": swap,
    "link of the whole": replace_by_link,
}


@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS)
def test_a_merged_model_that_was_changed_is_merged_again(
    parts: tuple[Path, Path], tmp_path: Path, poison: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    merge = merge_of(parts, tmp_path)
    merging.ensure_merged(merge)
    into = Path(merge.merged)
    right = {path.name: path.read_bytes() for path in into.iterdir()}
    poison(into)
    merging.ensure_merged(merge)
    assert not into.is_symlink()
    assert {path.name: path.read_bytes() for path in into.iterdir()} == right
    assert "made again" in caplog.text
    assert not list(into.parent.glob(".merging-*"))


def test_what_killed_merges_left_is_removed_after_a_day(parts: tuple[Path, Path], tmp_path: Path) -> None:
    merge = merge_of(parts, tmp_path)
    others = [Path(merge.merged).parent / name for name in (".merging-old", ".merging-new", "old")]
    for path in others:
        (path / "part").mkdir(parents=True)
    for path in (others[0], others[2]):
        for each in (path / "part", path):
            os.utime(each, (time.time() - 25 * 3600,) * 2)
    merging.ensure_merged(merge)
    assert [path.exists() for path in others] == [False, True, True]


def test_a_job_that_was_slower_takes_the_others(
    parts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge, original = merge_of(parts, tmp_path), merging.copy_served_files
    merging.ensure_merged(merge)
    Path(merge.merged).rename(tmp_path / "theirs")

    def meanwhile(source: Path, directory: Path, field: str) -> None:
        original(source, directory, field)
        (tmp_path / "theirs").rename(merge.merged)

    theirs = (tmp_path / "theirs").stat().st_ino
    monkeypatch.setattr(merging, "copy_served_files", meanwhile)
    merging.ensure_merged(merge)
    assert Path(merge.merged).stat().st_ino == theirs
    assert [path.name for path in Path(merge.merged).parent.iterdir()] == ["1"]


def test_a_base_of_which_one_byte_was_changed_is_refused(parts: tuple[Path, Path], tmp_path: Path) -> None:
    # Beyond the samples of large files, which were all that a digest covered.
    base = tmp_path / "base"
    shutil.copytree(parts[0], base)
    with (base / "model-2.safetensors").open("wb") as file:
        file.truncate(facts._WHOLE_FILE + (1 << 20))
    digest = model_digest(base)
    sampled = facts._sampled_digest(base)
    with (base / "model-2.safetensors").open("r+b") as file:
        file.seek(facts._SAMPLE_BYTES + 1000)
        file.write(b"x")
    assert facts._sampled_digest(base) == sampled, "the samples do not see it"
    with pytest.raises(BadInput, match="no longer the model that it was trained on"):
        merging.ensure_merged(merge_of((base, parts[1]), tmp_path, digest))


def test_an_adapter_of_an_older_release_knows_its_base_by_samples(parts: tuple[Path, Path], tmp_path: Path) -> None:
    recorded = facts._sampled_digest(parts[0])
    assert recorded != model_digest(parts[0])
    merging.ensure_merged(merge_of(parts, tmp_path, recorded))


def test_a_base_that_was_replaced_is_refused(parts: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no longer the model that it was trained on") as refused:
        merging.ensure_merged(merge_of(parts, tmp_path, "sha256:another"))
    assert refused.value.field == "spec.model" and not (tmp_path / "models").exists()


def test_a_workspace_that_is_too_small_is_refused(
    parts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=10, free=10))
    with pytest.raises(BadInput) as refused:
        merging.ensure_merged(merge_of(parts, tmp_path))
    assert refused.value.field == "spec.workspace.size"


@pytest.mark.parametrize("method", [method for method in MethodType if method.adapts])
def test_finish_merges_its_own_adapter_and_scores_what_is_served(
    method: MethodType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    config = tiny.make_run(tmp_path, method=method, steps=6, hidden=64, merge_output=True)
    monkeypatch.setenv("HONE_RUN_CONFIG", str(tmp_path / "run.json"))
    monkeypatch.setenv("HONE_TERMINATION_LOG", str(tmp_path / "term"))
    with tiny.only_rank():
        train._train(0, StatusDir(tmp_path))
    assert finish.main() == 0, (tmp_path / "term").read_text()
    artifact = Path(config.paths.output) / "artifact"
    reported = Report.model_validate_json((artifact.parent / "report.json").read_text()).artifact
    assert (reported.kind, reported.lora_rank, reported.api) == ("Model", None, "Chat")
    assert {path.name for path in artifact.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert not (artifact / "adapter_config.json").exists()
    last = checkpoint.final_checkpoint(config)[0]
    lora.export(config.model_copy(update={"merge_output": False}), CHAT, last, tmp_path)
    adapter = logits(lora.load(config, CHAT, tmp_path, torch.float32))
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(artifact)), adapter, atol=1e-5)
