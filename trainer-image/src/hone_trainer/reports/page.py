"""The report as one page of HTML that is complete in itself: no script, nothing loaded from elsewhere.

Everything in it that comes from data, specs or pods is escaped, hidden characters are shown, and the page's own policy
forbids scripts and connections, so that a row cannot do anything even where a reader's program is lenient.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from hone.contract.report import Confusion, Report
from hone.contract.results import Score
from hone_trainer.reports import text
from hone_trainer.reports.charts import charts, trial_charts
from hone_trainer.reports.findings import findings
from hone_trainer.reports.job import GateShown
from hone_trainer.reports.verdict import BETTER, UNCLEAR, WORSE, of_score, verdict

TEMPLATE = Path(__file__).with_name("page.html.jinja")
MAX_TEXT = 4000
"""Most characters of a text of a row that the page shows; report.json has all of them."""
TONES = {"Pass": BETTER, "Fail": WORSE, "Inconclusive": UNCLEAR}
_WHISKER = 140.0


def render(report: Report, *, rows: bool = True, gate: GateShown | None = None) -> str:
    """The page.

    Args:
        report: what to show.
        gate: what the job's gate decided, which is after finish has ended; None: unknown, or there is none.
        rows: whether to show rows of the test data; not on a page that is to be passed on.
    """
    record = report.record
    return _template().render(
        report=report,
        verdict=verdict(report),
        gate=gate,
        tones=TONES,
        groups=report.evaluation.groups if report.evaluation else None,
        retention=report.evaluation.retention if report.evaluation else None,
        benchmarks=report.evaluation.benchmarks if report.evaluation else None,
        judge=report.evaluation.judge if report.evaluation else None,
        judge_record=report.judge,
        findings=[*_problems(report), *report.plan.warnings, *findings(report)],
        scores=_scores(report),
        charts=charts(report.history) if report.history else [],
        search=report.search,
        trial_charts=trial_charts(report.search) if report.search else [],
        dataset=report.dataset.model_copy(update={"example": report.dataset.example if rows else None}),
        plan=_plan(report),
        samples=report.samples if rows else [],
        rows=rows,
        confusion=_confusion(report.confusion) if report.confusion else [],
        record=record,
        cost=record.price.of(record.gpu_seconds) if record and record.price else None,
    )


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    filters: dict[str, Callable[..., str]] = {
        "shown": lambda value: text.visible(str(value), MAX_TEXT),
        "number": text.number,
        "signed": text.signed,
        "interval": text.interval,
        "duration": text.duration,
        "size": text.size,
    }
    environment.filters |= filters
    return environment.from_string(TEMPLATE.read_text())


def _problems(report: Report) -> list[str]:
    """What was not scored, and why."""
    return (report.evaluation.problems if report.evaluation else None) or []


def _scores(report: Report) -> list[tuple[Score, str, Markup]]:
    """Each score, what it shows, and a picture of its improvement."""
    scores = report.evaluation.scores if report.evaluation else []
    return [(score, of_score(score), _whisker(score)) for score in scores]


def _whisker(score: Score) -> Markup:
    """The interval of an improvement around 0, as SVG."""
    change = score.improvement
    most = max(abs(change.lower), abs(change.upper), abs(change.value)) or 1.0
    low, middle, high = (
        _WHISKER / 2 + value / most * (_WHISKER / 2 - 6) for value in (change.lower, change.value, change.upper)
    )
    return Markup(
        f'<svg class="whisker {of_score(score)}" viewBox="0 0 {_WHISKER:g} 20" aria-hidden="true">'
        f'<line class="zero" x1="{_WHISKER / 2:g}" x2="{_WHISKER / 2:g}" y1="1" y2="19"/>'
        f'<line class="range" x1="{low:.1f}" x2="{high:.1f}" y1="10" y2="10"/>'
        f'<circle class="point" cx="{middle:.1f}" cy="10" r="4"/></svg>'
    )


def _plan(report: Report) -> list[tuple[str, object, str]]:
    """Each value of the plan by its name in status, with its reason; those with a reason first."""
    values = report.plan.to_dict()
    reasons = report.plan.reasons
    rows = [
        (name, value, reasons.get(name, ""))
        for name, value in values.items()
        if not isinstance(value, dict | list) and value is not None
    ]
    return sorted(rows, key=lambda row: not row[2])


def _confusion(confusion: Confusion) -> list[tuple[str, list[tuple[int, int, bool]]]]:
    """Each class with its cells: rows, their share of the line in steps of 10 %, and whether they are right."""
    counts = confusion.counts
    if counts and not any(counts[-1]) and not any(line[-1] for line in counts):
        counts = [line[:-1] for line in counts[:-1]]
    names = [*confusion.labels, "others"][: len(counts)]
    return [
        (
            name,
            [
                (count, round(10 * count / total) if (total := sum(line)) else 0, index == column)
                for column, count in enumerate(line)
            ],
        )
        for index, (name, line) in enumerate(zip(names, counts, strict=True))
    ]
