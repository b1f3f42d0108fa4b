"""The analysis of a rollout: the same prompts for both revisions of a server, and whether the new one may replace it.

    python -m hone_trainer.analyze

The environment variable `HONE_ANALYSIS` has an `Analysis`. The pod has no other credentials than a key of the servers.
"""

import logging
import os
import signal
import sys
from pathlib import Path

from hone.contract.analysis import ANALYSIS_ENV, MAX_KEY, MIN_KEY, Analysis, AnalysisSummary, AnalysisVerdict
from hone.contract.exits import exit_code
from hone.contract.results import StepResult
from hone_trainer.protocol import limits
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.logs import setup_logging
from hone_trainer.protocol.results import write_result
from hone_trainer.protocol.verdicts import Preempted, from_exception
from hone_trainer.protocol.volumes import read_file
from hone_trainer.scores.questions import FIELD, Endpoint, ask_both, questions_of
from hone_trainer.scores.revisions import judge
from hone_trainer.scores.speed import measure

STEP = "analyze"
SECONDS = 3000.0
MOST_BYTES = 256 << 20
"""Of the file with the rows."""

logger = logging.getLogger(__name__)


def analyze(analysis: Analysis) -> AnalysisSummary:
    """Ask both revisions, and compare; then measure how fast the candidate is, if it may be served.

    Raises:
        BadInput: the rows cannot be used, or the API has no metric.
    """
    if analysis.api not in ("Chat", "Classify"):
        raise BadInput("spec.rollout.analysis", f"cannot compare models of API {analysis.api}", "Remove it.")
    path = Path(analysis.rows)
    if not path.is_file():
        raise BadInput(FIELD, f"there is no file {path.name!r}", "Correct its path or key.")
    limits.reading(FIELD, path.name)
    questions = questions_of(read_file(path.parent, path.name, FIELD, MOST_BYTES), analysis.api, analysis.max_samples)
    limits.reading("", "")
    stable, candidate = (
        Endpoint(url, analysis.model, analysis.api, analysis.max_tokens, _key(keys))
        for url, keys in ((analysis.stable, analysis.stable_keys), (analysis.candidate, analysis.keys))
    )
    summary = judge(analysis, questions, ask_both(questions, stable.by_its_name(), candidate))
    if summary.verdict is AnalysisVerdict.FAIL:
        return summary
    return summary.model_copy(update={"performance": measure(candidate, questions)})


def _key(directory: str | None) -> str | None:
    """Any key of a Secret that is mounted, of those that count."""
    paths = sorted(Path(directory).iterdir()) if directory else []
    keys = [path.read_bytes().strip() for path in paths if not path.name.startswith("..") and path.is_file()]
    return next((key.decode("latin-1") for key in keys if MIN_KEY <= len(key) <= MAX_KEY), None)


def run() -> int:
    """Analyze, and write the result as termination message. Returns the exit code."""
    setup_logging()
    signal.signal(signal.SIGTERM, _stop)
    try:
        analysis = Analysis.model_validate_json(os.environ[ANALYSIS_ENV])
        result = StepResult(step=STEP, analysis=analyze(analysis))
    except Exception as error:
        if not isinstance(error, BadInput | Preempted):
            logger.exception("the analysis failed")
        result = StepResult(step=STEP, verdict=from_exception(error, None, None, None))
    write_result(result)
    logger.info("ended", extra={"result": result.to_dict()})
    return exit_code(result.verdict.failure_class) if result.verdict else 0


def _stop(*_: object) -> None:
    # PID 1 has no default handler: without this it would run until the grace period ends.
    raise Preempted("stopped by SIGTERM; the next attempt asks again")


def main() -> int:
    """Run it in a process that is ended when it takes too long."""
    return limits.supervised(STEP, run, SECONDS)


if __name__ == "__main__":
    sys.exit(main())
