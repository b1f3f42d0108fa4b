"""The gate in status: what it decided, the condition Promotable, and what to expect of it before training."""

from hone.api.finetunejob_status import FineTuneJobStatus
from hone.api.gate import GateStatus, GateVerdict
from hone.core.conditions import FALSE, TRUE, UNKNOWN, Finding
from hone.core.finetunejob.policies import gate_expectation
from hone.core.finetunejob.policies.gate import decide
from hone.core.finetunejob.run import Run

NOT_SCORED = "the model was not scored, so that the gate decides nothing"
_REASONS = {
    GateVerdict.PASS: (TRUE, "GatePassed"),
    GateVerdict.FAIL: (FALSE, "GateFailed"),
    GateVerdict.INCONCLUSIVE: (FALSE, "GateInconclusive"),
}


def gate_status(run: Run, status: FineTuneJobStatus) -> GateStatus | None:
    """What the gate says about the scores, or may be expected to say; None: there is no gate."""
    gate = run.spec.gate
    if gate is None:
        return None
    if status.not_scored or status.evaluation is None:
        message = NOT_SCORED if status.not_scored else "not scored yet"
        rows, objective = _rows(run, status), run.spec.objective
        expected = gate_expectation.expectation(gate, objective, rows, run.evaluation) if status.dataset else None
        return GateStatus(confidence=gate.confidence, message=message, expectation=expected)
    return decide(gate, status.evaluation)


def warnings(run: Run, status: FineTuneJobStatus) -> list[str]:
    """What should be changed about the gate before anything is trained, in sentences."""
    if run.spec.gate is None or status.dataset is None:
        return []
    return gate_expectation.warnings(run.spec.gate, run.spec.objective, _rows(run, status), run.evaluation)


def promotable(run: Run, status: FineTuneJobStatus, complete: bool, failed: bool) -> Finding:
    """The condition Promotable: whether a ModelDeployment may serve the model."""
    kind = "Promotable"
    if not complete:
        return Finding(kind, FALSE, "Failed") if failed else Finding(kind, UNKNOWN, "NotScoredYet")
    decided = gate_status(run, status)
    if decided is None:
        return Finding(kind, TRUE, "NoGate", "no minimum score is required")
    if decided.decision is None:
        why = f": {status.not_scored}" if status.not_scored else ""
        return Finding(kind, UNKNOWN, "NotScored", f"{decided.message}{why}")
    return Finding(kind, *_REASONS[decided.decision], decided.message)


def _rows(run: Run, status: FineTuneJobStatus) -> int:
    """Test rows that are scored."""
    return min(status.dataset.test_rows, run.evaluation.max_samples) if status.dataset else 0
