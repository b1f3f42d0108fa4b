"""The report as a page that is complete in itself, whatever hostile rows and names are in it; and two runs compared."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import tiny

from hone.contract.history import EvaluationPoint, History, HistoryPoint
from hone.contract.judge import Judge
from hone.contract.plan import BadRows, ClassRows, UnusedKey
from hone.contract.record import AttemptRecord, Price, RunRecord
from hone.contract.report import MAX_CONFUSED, Confusion, Report, Sample, ScoredRows
from hone.contract.results import (
    ArtifactSummary,
    BenchmarkSummary,
    EvaluationSummary,
    GroupScore,
    GroupSummary,
    Interval,
    RetentionSummary,
    Score,
)
from hone.contract.runconfig import JobIdentity
from hone_trainer import report as program
from hone_trainer.protocol.planfile import load_plan
from hone_trainer.reports import text
from hone_trainer.reports.charts import charts, ticks
from hone_trainer.reports.comparison import SAME_ROWS, compare
from hone_trainer.reports.findings import findings
from hone_trainer.reports.page import render
from hone_trainer.reports.verdict import BETTER, UNCLEAR, UNKNOWN, WORSE, verdict
from hone_trainer.scores.classes import confusion
from hone_trainer.scores.figures import RowFigures, telling_rows
from hone_trainer.scores.judge import record
from hone_trainer.scores.preferred import Comparison, summarize

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</title></style></svg></pre><iframe src=//example.org>",
    "javascript:alert(3)",
    "{{ 7 * 7 }}{% raw %}",
    "invoice\u202egnp.exe\u2066\u200b\x00\x1b[31m",
    "&lt;b&gt; ' ` \\",
]
INTERVAL = Interval(value=0.2, lower=0.1, upper=0.3)
ELEMENTS_THAT_LOAD = {"script", "img", "iframe", "object", "embed", "link", "form", "video", "audio", "base", "image"}


def score(lower: float, upper: float, metric: str = "exactMatch", samples: int = 400) -> Score:
    """A score whose improvement has this interval."""
    middle = (lower + upper) / 2
    return Score(
        metric=metric,
        higher_is_better=True,
        samples=samples,
        base=Interval(value=0.2, lower=0.15, upper=0.25),
        tuned=Interval(value=0.2 + middle, lower=0.2 + lower, upper=0.2 + upper),
        improvement=Interval(value=middle, lower=lower, upper=upper),
    )


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """What a run that was preempted once has written."""
    (tmp_path / "model").mkdir()
    planned = load_plan(tiny.make_run(tmp_path, steps=100))
    assert planned is not None
    return Report(
        job=JobIdentity(namespace="team-a", name="triage", uid="uid-1"),
        model_name="hf://org/base",
        final_step=100,
        plan=planned.plan,
        dataset=planned.dataset,
        evaluation=EvaluationSummary(scores=[score(0.1, 0.3)]),
        artifact=ArtifactSummary(digest="sha256:art", size_bytes=5 << 20, kind="Adapter", base_digest="sha256:base"),
        files=[],
        max_new_tokens=64,
        samples=[Sample(prompt="2 + 2", reference="4", base="5", tuned="4")],
        history=History(
            points=[
                HistoryPoint(step=step, loss=1 / step, learning_rate=1e-4, grad_norm=1.0) for step in range(1, 101)
            ],
            evaluations=[EvaluationPoint(step=50, loss=0.5), EvaluationPoint(step=100, loss=0.4)],
            resumed_at=[40],
        ),
        record=RunRecord(
            attempts=[
                AttemptRecord(
                    step="train", number=1, result="Failed", failure_class="Preempted", message="node drained"
                ),
                AttemptRecord(step="train", number=2, result="Succeeded"),
            ],
            gpu_seconds=7200,
            gpus=2,
            price=Price(currency="EUR", per_gpu_hour=2.5),
        ),
        scored_rows=ScoredRows(prompts="sha256:p", references="sha256:r"),
    )


class Reader(HTMLParser):
    """What a browser would see: elements with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.words = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "line", "circle", "rect", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data


def hostile(report: Report, words: str) -> Report:
    """The report with these words in every text that data, specs or pods decide."""
    clipped = words[:128]
    plan = report.plan.model_copy(update={"warnings": [words], "reasons": {"epochs": words}})
    dataset = report.dataset.model_copy(
        update={
            "example": words,
            "bad_rows": [BadRows(reason=words, count=1, first=words)],
            "unused_keys": [UnusedKey(key=clipped, count=1)],
            "classes": [ClassRows(label=clipped, rows=3)],
        }
    )
    attempt = AttemptRecord(step="train", number=1, result="Failed", failure_class="X", message=words, changes=[words])
    return report.model_copy(
        update={
            "job": JobIdentity(namespace="n", name=words, uid=words),
            "model_name": words,
            "plan": plan,
            "dataset": dataset,
            "notes": [words],
            "image": words,
            "samples": [Sample(prompt=words, reference=words, base=words, tuned=words)],
            "confusion": Confusion(labels=[clipped], counts=[[1, 0], [0, 0]]),
            "record": RunRecord(attempts=[attempt], gpus=1, price=Price(currency=words[:16], per_gpu_hour=1)),
        }
    )


@pytest.mark.parametrize("words", HOSTILE)
def test_hostile_text_is_text(words: str, report: Report) -> None:
    plain, page = Reader(render(hostile(report, "harmless"))), render(hostile(report, words))
    reader = Reader(page)
    assert reader.elements == plain.elements, "the words make no element and no attribute"
    assert (reader.open, reader.unbalanced) == ([], [])
    assert not {tag for tag, _ in reader.elements} & ELEMENTS_THAT_LOAD
    for _, attributes in reader.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "href", "action", "style")]
    assert reader.words.count(text.visible(words)) >= 12, "every place shows the words as they are"
    assert not re.search("[\x00\x1b\u200b\u202a-\u202e\u2066-\u2069]", page), "nothing hides or reorders text"


def test_nothing_is_loaded_from_elsewhere(report: Report) -> None:
    page = render(report)
    policy = next(attrs["content"] for tag, attrs in Reader(page).elements if "http-equiv" in attrs)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert not re.search(r"(https?:)?//|url\(|@import|<script", page.replace("hf://org/base", ""))


def test_it_is_readable_in_the_dark_on_paper_and_on_a_phone(report: Report) -> None:
    page = render(report)
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert 'content="width=device-width, initial-scale=1"' in page
    colors = {scheme: set(re.findall(r"(--[\w-]+):", block)) for scheme, block in _schemes(page)}
    assert colors["light"] == colors["dark"] >= {"--page", "--text", "--s0", "--s1"}, "each color has one in the dark"
    used = set(re.findall(r"var\((--[\w-]+)", page))
    assert used - colors["light"] == {"--tone", "--back"}, "those that depend on the verdict"


def _schemes(page: str) -> list[tuple[str, str]]:
    light = re.search(r":root \{(.*?)\}", page, re.DOTALL)
    dark = re.search(r"prefers-color-scheme: dark\) \{\s*:root \{(.*?)\}", page, re.DOTALL)
    assert light is not None
    assert dark is not None
    return [("light", light[1]), ("dark", dark[1])]


def test_the_sections_say_what_happened(report: Report) -> None:
    words = Reader(render(report)).words
    for sentence in ("node drained", "Dashed: training resumed from a checkpoint at step 40.", "5 EUR", "sha256:art"):
        assert sentence in words
    assert "2 + 2" in words


def test_a_page_to_pass_on_has_no_rows(report: Report) -> None:
    dataset = report.dataset.model_copy(update={"example": "a row of the training data"})
    page = render(report.model_copy(update={"dataset": dataset}), rows=False)
    assert "2 + 2" not in page
    assert "a row of the training data" not in page
    assert "Left out of this page." in page


def test_a_report_of_an_older_release_has_a_page(report: Report) -> None:
    nothing = {"history": None, "record": None, "scored_rows": None, "evaluation": None, "samples": []}
    page = render(report.model_copy(update=nothing))
    assert "made without the operator's record" in page
    assert "There are no scores." in page


@pytest.mark.parametrize(
    ("scores", "kind", "begin"),
    [
        (None, UNKNOWN, "The tuned model was not scored"),
        ([], UNKNOWN, "Without test rows"),
        ([score(0.1, 0.3)], BETTER, "The tuned model is better than its base: exactMatch went from 0.2 to 0.4 on 400"),
        ([score(-0.15, -0.05)], WORSE, "The tuned model is worse than its base"),
        ([score(-0.05, 0.3)], UNCLEAR, "No difference between the tuned model and its base is shown"),
        ([score(0.0, 0.3), score(0.1, 0.3)], UNCLEAR, "No difference"),
    ],
)
def test_the_verdict(scores: list[Score] | None, kind: str, begin: str, report: Report) -> None:
    evaluation = None if scores is None else EvaluationSummary(scores=scores)
    result = verdict(report.model_copy(update={"evaluation": evaluation}))
    assert result.kind == kind
    assert result.sentence.startswith(begin)


def test_the_findings_of_a_run(report: Report) -> None:
    assert list(findings(report)) == []
    losses = {10: 0.9, 20: 0.5, 30: 0.7}
    rising = History(evaluations=[EvaluationPoint(step=step, loss=loss) for step, loss in losses.items()])
    (words,) = findings(report.model_copy(update={"history": rising}))
    assert words.startswith("The validation loss rose from 0.5 at step 20 to 0.7 at step 30")
    far = score(0.1, 0.3, metric="loss").model_copy(update={"base": Interval(value=4.2, lower=4.0, upper=4.4)})
    (words,) = findings(report.model_copy(update={"evaluation": EvaluationSummary(scores=[far])}))
    assert words.startswith("The task is far from what the base model knows: its loss")
    assert "4.2 per token. What may still work" in words
    assert words in Reader(render(report.model_copy(update={"evaluation": EvaluationSummary(scores=[far])}))).words


def test_groups_and_what_was_forgotten_are_shown(report: Report) -> None:
    of_group = GroupScore(name="<i>north</i>", samples=40, tuned=INTERVAL, improvement=INTERVAL)
    groups = GroupSummary(
        column="region",
        metric="exactMatch",
        higher_is_better=True,
        count=2,
        insufficient=1,
        gap=INTERVAL,
        groups=[of_group],
    )
    retention = RetentionSummary(set="General", scores=[score(-0.1, 0.1, metric="loss")], skills={"sums": INTERVAL})
    evaluation = EvaluationSummary(scores=[score(0.1, 0.3)], groups=groups, retention=retention)
    words = Reader(render(report.model_copy(update={"evaluation": evaluation}))).words
    for text_ in ("Groups by region", "<i>north</i>", "Gap between best and worst", "What was forgotten", "loss, sums"):
        assert text_ in words


def test_benchmarks_are_shown(report: Report) -> None:
    benchmarks = [BenchmarkSummary(name="faq", scores=[score(0.1, 0.3)])]
    evaluation = EvaluationSummary(scores=[score(0.1, 0.3)], benchmarks=benchmarks)
    words = Reader(render(report.model_copy(update={"evaluation": evaluation}))).words
    assert "Benchmarks" in words and "faq" in words


def test_what_a_judge_prefers_is_shown_with_what_it_was_asked(report: Report) -> None:
    rows = [Comparison(1.0, 1.0 if row % 4 else 0.0, (-1) ** row) for row in range(60)]
    summary = summarize("<b>judge</b>", rows, 3).model_copy(update={"warnings": ["It prefers <i>lengths</i>."]})
    judge = Judge(url="https://judge.example.com/v1", model="j", criteria="Brevity <u>counts</u>.")
    problem = "spec.evaluation.retention was not scored: <s>no</s>"
    evaluation = EvaluationSummary(scores=[score(0.1, 0.3)], judge=summary, problems=[problem])
    words = Reader(render(report.model_copy(update={"evaluation": evaluation, "judge": record(judge)}))).words
    for text_ in (
        "What a judge prefers",
        "<b>judge</b> compared",
        "lengthControlledWinRate",
        "It prefers <i>lengths</i>.",
        "Brevity <u>counts</u>.",
        problem,
    ):
        assert text_ in words


def test_the_gate_is_taken_from_the_job_of_the_report(report: Report, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(report.to_json())
    rule = {"rule": "exactMatch min 0.9 <b>", "verdict": "Fail", "value": 0.4, "lower": 0.3, "upper": 0.5, "bar": 0.9}
    gate = {"decision": "Fail", "confidence": 0.95, "message": "exactMatch decided", "rules": [rule]}
    job, page = tmp_path / "job.json", tmp_path / "page.html"
    job.write_text(json.dumps({"metadata": {"uid": "uid-1"}, "status": {"gate": gate}}))
    assert program.main([str(tmp_path), "--job", str(job), "--out", str(page)]) == 0
    words = Reader(page.read_text()).words
    assert "exactMatch decided" in words
    assert "exactMatch min 0.9 <b>" in words
    assert "0.4 [0.3, 0.5]" in words


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file or directory. Name what kubectl get"),
        ("[]", "is no job"),
        ('{"metadata": {"uid": "another"}}', "is another job than that of the report"),
    ],
)
def test_another_job_is_refused(
    content: str | None, words: str, report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.json").write_text(report.to_json())
    job = tmp_path / "job.json"
    if content is not None:
        job.write_text(content)
    assert program.main([str(tmp_path), "--job", str(job)]) == 2
    assert words in capsys.readouterr().err


def test_rows_that_got_worse_come_first_then_those_that_got_better() -> None:
    base, tuned = np.array([1.0, 0.0, 0.5, 1.0, 0.0, np.nan]), np.array([1.0, 1.0, 0.0, 0.0, 0.2, 1.0])
    assert telling_rows(RowFigures("f1", base, tuned), 6, 20) == [3, 2, 1, 4, 0, 5]
    assert telling_rows(RowFigures("loss", base, tuned, higher_is_better=False), 6, 20) == [1, 4, 3, 2, 0, 5]
    assert telling_rows(RowFigures("f1", np.ones(100), np.zeros(100)), 100, 20) == list(range(20))
    many = telling_rows(RowFigures("f1", np.ones(100), np.repeat([0.0, 2.0], 50)), 100, 20)
    assert many == [*range(8), *range(50, 58), *range(8, 12)], "both kinds have their share"
    assert telling_rows(None, 30, 20) == list(range(20))


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (0.13, 0.31), (-3.0, 1e9), (1e-9, 3e-9), (2.0, 2.0000001), (-5e20, -4e20)]
)
def test_an_axis_has_few_round_marks_around_all_values(low: float, high: float) -> None:
    marks = ticks(low, high)
    assert marks[0] <= low + 1e-9 * abs(low)
    assert marks[-1] >= high - 1e-9 * abs(high)
    assert 2 <= len(marks) <= 8


@pytest.mark.parametrize("values", [[0.0], [3.0], [5.0, 5.0], [-1.0, -1.0], [0.0, 0.0], [1e-30, 1e30]])
def test_every_curve_stays_in_its_picture(values: list[float]) -> None:
    history = History(points=[HistoryPoint(step=10 * index, loss=value) for index, value in enumerate(values)])
    (chart,) = charts(history)
    numbers = re.findall(r'(?:points|c[xy])="([^"]+)"', str(chart.svg))
    places = [float(number) for part in numbers for number in re.split("[ ,]", part)]
    assert places
    assert all(0 <= place <= 480 for place in places)


def test_curves_without_figures_are_not_drawn(report: Report) -> None:
    assert [chart.title for chart in charts(History())] == []
    assert report.history is not None
    drawn = charts(report.history)
    assert [chart.title.split()[0] for chart in drawn] == ["Loss", "Learning", "Norm"]
    assert drawn[0].series == ["training", "validation"]
    assert "training: 1 at step 1, 0.01 at step 100" in drawn[0].summary


def test_a_confusion_of_many_classes_names_the_most_frequent() -> None:
    names = [f"c{index}" for index in range(30)]
    truth = np.array([index for index in range(30) for _ in range(31 - index)])
    predicted = np.where(truth == 29, 0, truth)
    table = confusion(names, truth, predicted)
    assert table.labels == names[:MAX_CONFUSED]
    assert len(table.counts) == len(table.counts[0]) == MAX_CONFUSED + 1
    assert sum(map(sum, table.counts)) == len(truth)
    assert table.counts[0][0] == 31
    assert table.counts[-1][0] == 2, "rows of another class that were taken for the first one"


def test_two_runs_on_the_same_rows(report: Report) -> None:
    better = report.model_copy(update={"evaluation": EvaluationSummary(scores=[score(0.5, 0.6)])})
    better = better.model_copy(update={"plan": report.plan.model_copy(update={"learning_rate": 0.5})})
    words = compare(report, better)
    assert SAME_ROWS in words
    assert "WARNING" not in words
    assert "B is better" in words
    assert "A is better" in compare(better, report)
    assert "no difference is shown" in compare(report, report)
    assert f"learningRate: A {report.plan.learning_rate}, B 0.5" in words


def test_of_metrics_where_lower_is_better_the_lower_one_is(report: Report) -> None:
    high, low = (
        score(start, start + 0.02, metric="loss").model_copy(update={"higher_is_better": False}) for start in (0.6, 0.1)
    )
    one, other = (report.model_copy(update={"evaluation": EvaluationSummary(scores=[each])}) for each in (high, low))
    assert "B is better" in compare(one, other)
    assert "A is better" in compare(other, one)


@pytest.mark.parametrize(
    ("rows", "warning"),
    [
        (ScoredRows(prompts="sha256:p", references="sha256:other"), "The test data differ"),
        (ScoredRows(prompts="sha256:other", references="sha256:r"), "The references are the same, but the prompts"),
        (None, "It is unknown whether both were scored on the same test rows"),
    ],
)
def test_other_test_data_are_warned_of(rows: ScoredRows | None, warning: str, report: Report) -> None:
    other = report.dataset.model_copy(update={"digest": "sha256:other"})
    words = compare(report, report.model_copy(update={"scored_rows": rows, "dataset": other}))
    assert words.startswith("WARNING (1)")
    assert warning in words
    assert SAME_ROWS not in words


def test_the_program_writes_pages_and_compares(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "claim"
    run.mkdir()
    (run / "report.json").write_text(report.to_json())
    assert program.main([str(run)]) == 0
    assert "2 + 2" in (run / "report.html").read_text()
    public = tmp_path / "public.html"
    assert program.main([str(run / "report.json"), "--out", str(public), "--without-rows"]) == 0
    assert "2 + 2" not in public.read_text()
    capsys.readouterr()
    assert program.main([str(run), str(run)]) == 0
    assert SAME_ROWS in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file or directory. Name a report.json"), ("{}", "is not a report of Hone (job: Field required)")],
)
def test_what_is_no_report_is_named(
    content: str | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    assert program.main([str(tmp_path)]) == 2
    assert words in capsys.readouterr().err
