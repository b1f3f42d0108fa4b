"""kwok's Stages for Hone's pods: each step ends with the termination message that a trainer's pod would leave."""

from typing import Any

from dev.cluster import kwok
from hone.contract.analysis import AnalysisSummary, AnalysisVerdict
from hone.contract.exits import FailureClass
from hone.contract.plan import DatasetSummary, MemoryEstimate, Plan
from hone.contract.results import (
    ArtifactSummary,
    EvaluationSummary,
    Interval,
    Score,
    StepResult,
)
from hone.contract.settings import GenerationEngine, Scheduler
from hone.contract.verdict import Verdict
from hone.core.names import STEP_LABEL

POD_ADDRESS = "127.0.0.9"
"""Address of every played pod. Nothing listens there, so progress is refused at once, unless a test serves it."""
ADDRESS = "test.hone.dev/address"
"""Annotation of pods that have another address."""
MANUAL = "test.hone.dev/manual"
"""Annotation of pods that the test plays itself: kwok leaves them Pending."""
SCARCE = "test.hone.dev/scarce"
"""Annotation of pods whose prepare step finds 40 samples."""
SERVED = "test.hone.dev/vllm"
"""Annotation of pods whose prepare step lets a vLLM server generate answers."""
HOLD = "test.hone.dev/hold"
"""Annotation of pods whose train step runs until the annotation is taken away."""
CRASHES = "test.hone.dev/crashes"
"""Annotation of pods whose container ends again and again."""

DATASET = DatasetSummary(
    digest="sha256:0d", format="PromptCompletion", train_on="Completion", train_rows=800, validation_rows=100,
    test_rows=100, tokens=20_000, trained_token_share=0.5, longest_row=64,
)  # fmt: skip
PLAN = Plan(
    total_steps=50, epochs=1, learning_rate=2e-4, scheduler=Scheduler.COSINE, warmup_ratio=0.03, global_batch_size=16,
    micro_batch_size=16, gradient_accumulation_steps=1, sequence_length=64, weight_decay=0, max_grad_norm=1.0,
    world_size=1, zero_stage=0, precision="float32", lora_rank=32, lora_alpha=32, lora_dropout=0.05,
    checkpoint_every_steps=5, parameters=3_700_000, trainable_parameters=300_000,
    memory=MemoryEstimate(
        weights_bytes=1, gradients_bytes=1, optimizer_bytes=1, activations_bytes=1, overhead_bytes=1, total_bytes=5
    ),
)  # fmt: skip
SCORE = Score(
    metric="exact_match", higher_is_better=True, samples=100, base=Interval(value=0.1, lower=0.05, upper=0.15),
    tuned=Interval(value=0.8, lower=0.7, upper=0.9), improvement=Interval(value=0.7, lower=0.6, upper=0.8),
)  # fmt: skip
RESULTS = {
    "prepare": StepResult(step="prepare", dataset=DATASET, plan=PLAN),
    "train": StepResult(step="train", final_step=50),
    "finish": StepResult(
        step="finish",
        evaluation=EvaluationSummary(scores=[SCORE]),
        artifact=ArtifactSummary(digest="sha256:a1", size_bytes=1_000_000, kind="Adapter", lora_rank=32, base="tiny"),
    ),
    "analyze": StepResult(
        step="analyze", analysis=AnalysisSummary(verdict=AnalysisVerdict.PASS, message="accuracy 0.87", samples=200)
    ),
}
SCARCE_MESSAGE = "40 training rows, fewer than minSamples: 500 (dataset.minSamples)"
SCARCE_HINT = "Add rows, or set dataset.onScarceData: Warn."
SCARCE_RESULT = StepResult(
    step="prepare",
    verdict=Verdict(failure_class=FailureClass.BAD_INPUT, message=SCARCE_MESSAGE, hint=SCARCE_HINT, exit_code=64),
)

SERVED_PLAN = PLAN.model_copy(update={"objective": "GRPO", "generation_engine": GenerationEngine.VLLM})
PREPARED = {
    SCARCE: (SCARCE_RESULT, 64),
    SERVED: (StepResult(step="prepare", dataset=DATASET, plan=SERVED_PLAN), 0),
}
"""How prepare ends otherwise, with its exit code, by the annotation of its pods."""


def stages() -> list[kwok.Manifest]:
    """The Stages: pods run as soon as they are scheduled; those of the steps end with their results."""
    out = [
        kwok.stage(
            "pod-running",
            "Pod",
            [kwok._NOT_DELETED, _phase("Pending"), _absent(MANUAL), _absent(CRASHES)],
            {"statusTemplate": _RUNNING},
        ),
        kwok.stage(
            "pod-crashing",
            "Pod",
            [kwok._NOT_DELETED, _phase("Pending"), _present(CRASHES)],
            {"statusTemplate": _CRASHING},
        ),
    ]
    for step, result in RESULTS.items():
        here = [kwok._NOT_DELETED, _phase("Running"), _equals("labels", STEP_LABEL, step)]
        plain = [
            *here,
            *([_absent(annotation) for annotation in PREPARED] if step == "prepare" else []),
            *([_absent(HOLD)] if step == "train" else []),
        ]
        out.append(kwok.stage(f"{step}-ended", "Pod", plain, {"statusTemplate": _ended(result, 0)}, 200))
    for annotation, (result, code) in PREPARED.items():
        here = [kwok._NOT_DELETED, _phase("Running"), _equals("labels", STEP_LABEL, "prepare"), _present(annotation)]
        name = f"prepare-{annotation.rpartition('/')[2]}"
        out.append(kwok.stage(name, "Pod", here, {"statusTemplate": _ended(result, code)}, 200))
    return out


def _equals(where: str, name: str, value: str) -> dict[str, Any]:
    return {"key": f'.metadata.{where}["{name}"]', "operator": "In", "values": [value]}


def _absent(annotation: str) -> dict[str, Any]:
    return {"key": f'.metadata.annotations["{annotation}"]', "operator": "DoesNotExist"}


def _present(annotation: str) -> dict[str, Any]:
    return {"key": f'.metadata.annotations["{annotation}"]', "operator": "Exists"}


def _phase(phase: str) -> dict[str, Any]:
    return {"key": ".status.phase", "operator": "In", "values": [phase]}


_RUNNING = """\
{{ $now := Now }}
{{ $address := or ( index ( or .metadata.annotations dict ) "ANNOTATION" ) "ADDRESS" }}
phase: Running
startTime: {{ $now | Quote }}
hostIP: 127.0.0.1
podIP: {{ $address }}
podIPs: [{ip: {{ $address }}}]
conditions:
{{ range $kind := list "Initialized" "Ready" "ContainersReady" }}
- {type: {{ $kind }}, status: "True", lastTransitionTime: {{ $now | Quote }}}
{{ end }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: true
  started: true
  restartCount: 0
  state: {running: {startedAt: {{ $now | Quote }}}}
{{ end }}
""".replace("ADDRESS", POD_ADDRESS).replace("ANNOTATION", ADDRESS)


_CRASHING = (
    _RUNNING.replace("ready: true", "ready: false")
    .replace("started: true", "started: false")
    .replace("restartCount: 0", "restartCount: 3")
    .replace('"Ready" "ContainersReady" ', "")
    .replace(
        "state: {running",
        "lastState: {terminated: {exitCode: 1, reason: Error, message: no kernel image}}\n  state: {running",
    )
)


def _ended(result: StepResult, code: int) -> str:
    message = result.to_json().replace("'", "''")
    reason = "Completed" if code == 0 else "Error"
    return f"""\
{{{{ $now := Now }}}}
phase: {"Succeeded" if code == 0 else "Failed"}
containerStatuses:
{{{{ range .spec.containers }}}}
- name: {{{{ .name | Quote }}}}
  image: {{{{ .image | Quote }}}}
  imageID: ""
  ready: false
  started: false
  restartCount: 0
  state:
    terminated:
      exitCode: {code}
      reason: {reason}
      message: '{message}'
      startedAt: {{{{ $now | Quote }}}}
      finishedAt: {{{{ $now | Quote }}}}
{{{{ end }}}}
"""
