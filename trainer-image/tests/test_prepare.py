"""The prepare step as the pod runs it: exit code, termination message, plan.json, and what is refused."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from data_files import KINDS, save_folder, write
from rows import CHAT_TEMPLATE, chat_row

from hone.contract.methods import ADAPTER_METHODS
from hone.contract.plan import Plan
from hone.contract.results import MAX_TERMINATION_BYTES, StepResult
from hone.contract.rules.finetunejob import either
from hone.contract.runconfig import RunConfig
from hone_trainer import prepare as step
from hone_trainer.data import build
from hone_trainer.data.prepared import META_FILE, load_prepared
from hone_trainer.models import merging
from hone_trainer.protocol import manifest
from hone_trainer.protocol.planfile import load_plan
from hone_trainer.protocol.runconfig import digest_of

pytestmark = pytest.mark.slow


class Pod:
    """Runs the step with a RunConfig the way its pod does."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config_path, self.log = tmp_path / "run.json", tmp_path / "termination-log"
        monkeypatch.setenv("HONE_RUN_CONFIG", str(self.config_path))
        monkeypatch.setenv("HONE_TERMINATION_LOG", str(self.log))

    def run(self, config: dict[str, Any]) -> tuple[int, StepResult]:
        """Exit code and termination message."""
        self.config_path.write_text(json.dumps(config))
        self.log.write_bytes(b"")
        code = step.main()
        message = self.log.read_bytes()
        assert len(message) <= MAX_TERMINATION_BYTES
        return code, StepResult.from_dict(json.loads(message))


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    handler = signal.getsignal(signal.SIGTERM)
    yield Pod(tmp_path, monkeypatch)
    signal.signal(signal.SIGTERM, handler)


def copy_of(model: Path, to: Path, without: Iterable[str] = ()) -> Path:
    shutil.copytree(model, to, ignore=lambda _, names: [n for n in names if n in without])
    return to


def test_the_result_tells_dataset_and_plan(pod: Pod, make_config: Any) -> None:
    config = make_config()
    code, result = pod.run(config)
    assert code == 0
    assert (result.step, result.verdict) == ("prepare", None)
    assert result.plan is not None and result.dataset is not None
    assert result.plan.total_steps == 48
    assert result.dataset.train_rows + result.dataset.validation_rows + result.dataset.test_rows == 300
    planned = load_plan(RunConfig.from_dict(config))
    assert planned is not None
    assert planned.dataset.example is not None
    assert (planned.plan, planned.dataset.model_copy(update={"example": None})) == (result.plan, result.dataset)
    assert Path(planned.prepared).parent == Path(config["paths"]["workspace"]) / "prepared"
    assert planned.dataset.digest == f"sha256:{Path(planned.prepared).name}"


@pytest.mark.train
def test_every_kind_of_file_gives_the_same_prepared_rows(pod: Pod, make_config: Any, tmp_path: Path) -> None:
    rows = [chat_row(i) for i in range(40)]
    paths = [write(tmp_path / "kinds" / name, rows) for name in KINDS] + [save_folder(tmp_path / "saved", rows)]
    prepared = {}
    for path in paths:
        config = make_config(data={"train": str(path)})
        code, result = pod.run(config)
        assert code == 0, f"{path.name}: {result.verdict}"
        assert result.dataset is not None
        assert result.dataset.format == "Messages"
        planned = load_plan(RunConfig.from_dict(config))
        assert planned is not None
        prepared[path.name] = load_prepared(planned.prepared).train["input_ids"][:]
    first = prepared["rows.jsonl"]
    assert len(first) > 20
    assert [name for name, ids in prepared.items() if ids != first] == []


def test_files_of_a_volume_are_read_with_their_columns_named_and_none_beyond_it(
    pod: Pod, make_config: Any, tmp_path: Path
) -> None:
    rows = [{"q": f"question {i}?", "a": f"answer {i}"} for i in range(40)]
    volume = tmp_path / "mounts" / "train"
    write(volume / "one" / "rows.jsonl", rows[:20])
    write(volume / "two" / "rows.csv", rows[20:])
    data = {
        "train": str(volume / "*" / "rows.*"),
        "mounts": str(tmp_path / "mounts"),
        "columns": {"prompt": "q", "completion": "a"},
    }
    code, result = pod.run(make_config(data=data))
    assert code == 0, result.verdict
    assert result.dataset is not None
    assert result.dataset.format == "PromptCompletion"
    assert sum((result.dataset.train_rows, result.dataset.validation_rows, result.dataset.test_rows)) == 40
    (volume / "three").symlink_to(write(tmp_path / "elsewhere" / "rows.jsonl", rows).parent)
    code, result = pod.run(make_config(data=data | {"minSamples": 11}))
    assert code == 64
    assert result.verdict is not None
    assert "three/rows.jsonl leads out of its volume" in result.verdict.message


def test_a_second_run_answers_the_frozen_plan(pod: Pod, make_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config()
    _, first = pod.run(config)
    # Whatever a newer version would plan: the plan of a run does not change.
    monkeypatch.setattr(step, "make_plan", lambda *_: pytest.fail("planned again"))
    Path(config["data"]["train"]).write_text("no longer what it was\n")
    code, second = pod.run(config)
    assert (code, second) == (0, first)


def test_a_changed_run_config_is_planned_anew(pod: Pod, make_config: Any) -> None:
    pod.run(make_config())
    changed = make_config(hyperparameters={"epochs": 1})
    assert load_plan(RunConfig.from_dict(changed)) is None
    _, result = pod.run(changed)
    assert result.plan is not None
    assert result.plan.epochs == 1
    assert load_plan(RunConfig.from_dict(changed)) is not None


def test_a_later_release_that_knows_more_fields_finds_the_plan_of_a_started_run(make_config: Any) -> None:
    class Later(RunConfig):
        version: int = RunConfig.model_fields["version"].default + 1
        brand_new: int = 3

    text = json.dumps(make_config())
    assert digest_of(Later.model_validate_json(text)) == digest_of(RunConfig.model_validate_json(text))
    other = json.dumps({**make_config(), "brandNew": 4})
    assert digest_of(Later.model_validate_json(other)) != digest_of(Later.model_validate_json(text))


def _no_model(config: dict[str, Any], model: Path, tmp: Path) -> None:
    copy_of(model, tmp / "models" / "llama" / "tiny")
    (tmp / "models" / "notes").mkdir()
    config["paths"]["model"] = str(tmp / "models" / "llama-tiny")


def _no_config_json(config: dict[str, Any], model: Path, tmp: Path) -> None:
    copy_of(model, tmp / "models" / "tiny")
    config["paths"]["model"] = str(tmp / "models")


def _without(*names: str) -> Any:
    def change(config: dict[str, Any], model: Path, tmp: Path) -> None:
        config["paths"]["model"] = str(copy_of(model, tmp / "m", without=names))

    return change


def _with_file(name: str, content: str) -> Any:
    def change(config: dict[str, Any], model: Path, tmp: Path) -> None:
        directory = copy_of(model, tmp / "m")
        (directory / name).write_text(content)
        config["paths"]["model"] = str(directory)

    return change


def _with_config(**values: Any) -> Any:
    def change(config: dict[str, Any], model: Path, tmp: Path) -> None:
        directory = copy_of(model, tmp / "m")
        content = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps(content | values))
        config["paths"]["model"] = str(directory)

    return change


def _cut_weights(config: dict[str, Any], model: Path, tmp: Path) -> None:
    directory = copy_of(model, tmp / "m")
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    config["paths"]["model"] = str(directory)


def _missing_shard(config: dict[str, Any], model: Path, tmp: Path) -> None:
    directory = copy_of(model, tmp / "m")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    config["paths"]["model"] = str(directory)


def _rows(*lines: str) -> Any:
    def change(config: dict[str, Any], model: Path, tmp: Path) -> None:
        Path(config["data"]["train"]).write_text("\n".join(lines))

    return change


def _set(section: str, **values: Any) -> Any:
    def change(config: dict[str, Any], model: Path, tmp: Path) -> None:
        config.setdefault(section, {}).update(values)

    return change


def _whole(output_bytes: int) -> Any:
    def change(config: dict[str, Any], model: Path, tmp: Path) -> None:
        config |= {"mergeOutput": True, "outputBytes": output_bytes}

    return change


FEW_ROWS = [json.dumps(chat_row(i)) for i in range(40)]
PLAIN = [json.dumps({"prompt": f"Is {i} even?", "completion": " yes"}) for i in range(100)]


@pytest.mark.parametrize(
    ("change", "says", "hint"),
    [
        pytest.param(
            _no_model, "spec.model.claim.path: there is no directory", "Use one that exists", id="unknown model path"
        ),
        pytest.param(_no_model, "with the models llama/tiny", "", id="and what there is instead"),
        pytest.param(_no_config_json, "spec.model.claim.path: no config.json", "models below it: tiny", id="a parent"),
        pytest.param(_without("model.safetensors"), "spec.model: no weights in", "*.safetensors", id="no weights"),
        pytest.param(
            _cut_weights, "spec.model: model.safetensors is not a complete", "Copy it again", id="half weights"
        ),
        pytest.param(
            _with_file("model.safetensors", "version https://git-lfs.github.com/spec/v1\n"),
            "spec.model: model.safetensors is not a complete safetensors file",
            "git lfs pull",
            id="a Git LFS pointer for weights",
        ),
        pytest.param(_missing_shard, "1 of 2 weight files are missing", "Copy the whole model", id="a missing shard"),
        pytest.param(
            _without("tokenizer.json"), "spec.model: no tokenizer in", "Copy tokenizer.json", id="no tokenizer"
        ),
        pytest.param(
            _with_file("tokenizer.json", "{}"), "spec.model: its tokenizer cannot be loaded", "", id="broken tokenizer"
        ),
        pytest.param(
            _without("chat_template.jinja"),
            "spec.model: the rows are conversations, but the model has no chat template",
            "Set spec.dataset.chatTemplate (name ChatML",
            id="no chat template",
        ),
        pytest.param(_with_file("config.json", "{"), "spec.model: config.json is not JSON", "Copy", id="broken config"),
        pytest.param(
            _with_config(model_type="from-the-future"), "spec.model: its config.json cannot be used", "", id="unknown"
        ),
        pytest.param(_with_config(model_type="vit"), "spec.model: vit is not a causal", "generates text", id="no LM"),
        pytest.param(
            _with_config(architectures=["LlamaForSequenceClassification"]),
            "spec.model: it is a LlamaForSequenceClassification",
            "Use the base model that it was trained from",
            id="a reward model",
        ),
        pytest.param(
            _with_config(quantization_config={"quant_method": "awq"}),
            "spec.model: `quantization_config` in config.json says that the weights are quantized already",
            "unquantized",
            id="quantized weights",
        ),
        pytest.param(
            _with_file("chat_template.jinja", "{{ messages[-1]['content'] }}"),
            "the chat template does not show every turn of a conversation",
            "Set spec.dataset.chatTemplate to a template that fits these rows",
            id="a template that forgets turns",
        ),
        pytest.param(
            _with_file(
                "chat_template.jinja",
                "{% for m in messages %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}.{% endfor %}",
            ),
            "spec.model: its chat template (chat_template) cannot be used for 300 rows, first train.jsonl:1: the chat "
            "template does not show the content",
            "a template for text",
            id="a template for images",
        ),
        pytest.param(_rows("no", "json"), "spec.dataset.train: none of the 2 rows", "Write each row", id="no JSON"),
        pytest.param(
            _rows('{"words": "a"}'),
            "the rows have `words`, expected `messages` or `prompt` and `completion`",
            "Write each row",
            id="a missing column",
        ),
        pytest.param(
            lambda config, model, tmp: (_rows(*FEW_ROWS)(config, model, tmp), _scarce(config)),
            "spec.dataset.minSamples: ",
            "onScarceData to Warn",
            id="40 samples with onScarceData Fail",
        ),
        pytest.param(
            _set("data", train="/nowhere/train.jsonl"), "spec.dataset.train: /nowhere", "a glob", id="no such data"
        ),
        pytest.param(
            lambda config, model, tmp: (_rows(*PLAIN)(config, model, tmp), config["data"].update(trainOn="Assistant")),
            "spec.dataset.trainOn: is Assistant",
            "Completion or All",
            id="the assistant's turns of plain text",
        ),
        pytest.param(
            _set("hyperparameters", sequenceLength=512),
            "spec.hyperparameters.sequenceLength: 512 tokens are more than the model's context of 256",
            "at most 256",
            id="longer than the model's context",
        ),
        pytest.param(
            _set("method", type="Full", lora={"rank": 8}),
            f"spec.method.lora: is supported only with type {either(ADAPTER_METHODS)}",
            "type to LoRA",
            id="LoRA in Full",
        ),
        pytest.param(
            _set("evaluation", benchmarks=[{"name": "b", "configMap": {"name": "b", "key": "nothing.jsonl"}}]),
            "spec.evaluation.benchmarks[0]: ",
            "",
            id="a benchmark that is nowhere",
        ),
        pytest.param(_whole(1000), "spec.output.size: the artifact is a whole model", "at least", id="a small output"),
        pytest.param(_set("topology", memoryBytes=100_000), "spec.compute: the model of", "more memory", id="too big"),
    ],
)
def test_bad_input_is_refused_with_field_and_remedy_and_leaves_nothing(
    pod: Pod, make_config: Any, tiny_model: Path, tmp_path: Path, change: Any, says: str, hint: str
) -> None:
    config = make_config()
    change(config, tiny_model, tmp_path)
    code, result = pod.run(config)
    assert code == 64
    assert result.verdict is not None
    assert result.verdict.failure_class == "BadInput"
    assert result.verdict.exit_code == 64
    assert says in result.verdict.message
    assert hint in (result.verdict.hint or "")
    assert result.plan is None and result.dataset is None
    run, prepared = Path(config["paths"]["run"]), Path(config["paths"]["workspace"]) / "prepared"
    assert not run.exists() or not list(run.iterdir())
    assert not list(prepared.glob(".tmp-*"))


def test_another_jobs_adapter_is_merged_before_the_model_is_read(
    pod: Pod, make_config: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = tmp_path / "workspace/models/1"
    monkeypatch.setattr(merging, "ensure_merged", lambda merge: copy_of(Path(merge.base), Path(merge.merged)))
    merge = {"field": "spec.model", "adapter": "/none", "base": str(tiny_model), "merged": str(merged)}
    code, result = pod.run(make_config(paths={"model": str(merged)}, merges=[merge]))
    assert code == 0 and result.plan is not None


def change_byte(directory: Path) -> None:
    """Change the weights, but not their size."""
    weights = directory / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)


def add_link(directory: Path) -> None:
    """A link from the artifact to another of its files."""
    (directory / "added.jinja").symlink_to("config.json")


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (change_byte, "its files have the digest sha256:"),
        (lambda directory: (directory / "modeling.py").touch(), "its files have the digest sha256:"),
        (lambda directory: (directory / "generation_config.json").unlink(), "its files have the digest sha256:"),
        (add_link, "'added.jinja' is a link"),
    ],
    ids=["changed byte", "added file", "removed file", "link"],
)
def test_another_jobs_model_that_was_changed_is_refused(
    pod: Pod, make_config: Any, tiny_model: Path, tmp_path: Path, attack: Callable[[Path], object], words: str
) -> None:
    model = copy_of(tiny_model, tmp_path / "upstream/artifact")
    upstream = {
        "field": "spec.model.jobRef.name",
        "path": str(model),
        "digest": manifest.digest_of(manifest.list_files(model)),
    }
    config = make_config([chat_row(i) for i in range(50)], paths={"model": str(model)}, artifacts=[upstream])
    attack(model)
    code, result = pod.run(config)
    assert code == 64
    message = result.verdict.message
    assert message.startswith("spec.model.jobRef.name: that job's model was changed after it was written: ")
    assert words in message
    assert result.plan is None


def test_another_jobs_model_that_is_as_it_was_written_is_read(
    pod: Pod, make_config: Any, tiny_model: Path, tmp_path: Path
) -> None:
    model = copy_of(tiny_model, tmp_path / "upstream/artifact")
    digest = manifest.digest_of(manifest.list_files(model))
    upstream = {"field": "spec.model.jobRef.name", "path": str(model), "digest": digest}
    code, _ = pod.run(make_config([chat_row(i) for i in range(50)], paths={"model": str(model)}, artifacts=[upstream]))
    assert code == 0


def _scarce(config: dict[str, Any]) -> None:
    config["data"] |= {"minSamples": 500, "onScarceData": "Fail"}


def test_scarce_data_that_only_warn_are_planned(pod: Pod, make_config: Any) -> None:
    code, result = pod.run(make_config([chat_row(i) for i in range(40)], data={"minSamples": 500}))
    assert code == 0
    assert result.plan is not None
    assert any(warning.startswith("Little data") for warning in result.plan.warnings)


@pytest.mark.parametrize(
    ("rows", "sections", "warning"),
    [
        pytest.param(PLAIN, {}, "plain text, but the model has a chat template", id="plain text for a chat model"),
        pytest.param(
            [chat_row(i) for i in range(50)],
            {"data": {"validationFraction": 0.001}},
            "No row is left for validation",
            id="no validation",
        ),
        pytest.param(
            [chat_row(i) for i in range(50)],
            {"data": {"testFraction": 0.001}},
            "No row is left for the test",
            id="no test",
        ),
        pytest.param([*(chat_row(i) for i in range(50)), "oops"], {}, "1 faulty rows were left out", id="bad rows"),
    ],
)
def test_what_is_allowed_but_hardly_wanted_is_warned_of(
    pod: Pod, make_config: Any, rows: list[Any], sections: dict[str, Any], warning: str
) -> None:
    code, result = pod.run(make_config(rows, **sections))
    assert code == 0
    assert result.plan is not None
    assert any(warning in text for text in result.plan.warnings)


def test_no_validation_rows_are_no_fault_where_none_were_asked_for(pod: Pod, make_config: Any) -> None:
    code, result = pod.run(make_config([chat_row(i) for i in range(50)], data={"validationFraction": 0.0}))
    assert code == 0
    assert result.plan is not None and result.dataset is not None
    assert (result.plan.evaluation_every_steps, result.dataset.validation_rows) == (None, 0)
    assert not any("validation" in warning for warning in result.plan.warnings)


def test_a_template_whose_turns_never_end_is_warned_of(
    pod: Pod, make_config: Any, tiny_model: Path, tmp_path: Path
) -> None:
    model = copy_of(tiny_model, tmp_path / "m")
    endless = CHAT_TEMPLATE.replace("+ '<|im_end|>' }}{%- endgeneration", "}}{%- endgeneration")
    (model / "chat_template.jinja").write_text(endless)
    _, result = pod.run(make_config(paths={"model": str(model)}))
    assert result.plan is not None
    assert any("will not learn where to stop" in text for text in result.plan.warnings)


def test_a_fault_of_the_code_is_a_crash_that_is_tried_again(
    pod: Pod, make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Plan:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(step, "make_plan", fail)
    code, result = pod.run(make_config())
    assert code == 70
    assert result.verdict is not None
    assert result.verdict.failure_class == "Crashed"
    assert result.verdict.message.startswith("ZeroDivisionError: a bug (test_prepare.py:")


def test_a_full_disk_names_the_workspace(pod: Pod, make_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step, "save_plan", fail)
    code, result = pod.run(make_config())
    assert code == 70
    assert result.verdict is not None
    assert "spec.workspace.size" in (result.verdict.hint or "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file that HONE_RUN_CONFIG names is not JSON"),
        ("[]", "has version None"),
        ('{"version": 99}', "has version 99, this trainer reads 1"),
        ('{"version": 1, "modelName": "m"}', "RunConfig.job: Field required"),
    ],
)
def test_a_run_config_of_another_release_is_refused(pod: Pod, content: str, message: str) -> None:
    pod.config_path.write_text(content)
    assert step.main() == 64
    verdict = StepResult.from_dict(json.loads(pod.log.read_bytes())).verdict
    assert verdict is not None
    assert message in verdict.message


def test_logs_are_json_lines(pod: Pod, make_config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pod.run(make_config())
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"Rows checked", "Data prepared", "Prepared"} <= {line["msg"] for line in lines}
    for line in lines:
        assert {"time", "level", "msg"} <= set(line)


def test_sigterm_leaves_nothing_that_looks_whole(pod: Pod, make_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config()
    pod.config_path.write_text(json.dumps(config))
    prepared = Path(config["paths"]["workspace"]) / "prepared"
    half_written: list[Path] = []

    def stopped(*_: Any, **__: Any) -> None:
        half_written.extend(prepared.glob(".tmp-*/train"))
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("the signal did not end the step")

    # Called for the second split, when the first one is on disk.
    with monkeypatch.context() as patched:
        patched.setattr(build, "finish_split", _second_time(build.finish_split, stopped))
        with pytest.raises(SystemExit) as end:
            step.main()
    assert end.value.code == 75
    assert len(half_written) == 1
    (left,) = prepared.iterdir()
    assert left.name.startswith(".tmp-")
    assert not (left / META_FILE).exists()
    assert step.main() == 0
    assert not list(prepared.glob(".tmp-*"))


def _second_time(first: Callable[..., Any], then: Callable[..., Any]) -> Callable[..., Any]:
    calls: list[int] = []

    def call(*args: Any, **options: Any) -> Any:
        calls.append(1)
        return (first if len(calls) == 1 else then)(*args, **options)

    return call
