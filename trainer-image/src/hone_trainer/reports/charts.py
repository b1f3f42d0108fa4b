"""Curves as SVG: lines over optimizer steps, with axes, for light and dark pages and for printers.

No plotting library is in the image, and five charts of two lines need none: what is drawn is a table of series.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from hone.contract.history import History, HistoryPoint
from hone.contract.search import CurvePoint, SearchRecord
from hone_trainer.reports.text import short, size

WIDTH, HEIGHT = 480.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 12.0, 12.0, 34.0
TICKS = 5
"""About as many marks on an axis."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """A line.

    Attributes:
        name: what it is.
        points: steps and values.
    """

    name: str
    points: Points


@dataclass(frozen=True)
class Chart:
    """A picture with its title.

    Attributes:
        title: what is drawn, with its unit.
        series: names of the lines, in the order of their colors.
        svg: the picture.
        summary: first, last, lowest and highest value in words, for those who cannot see it.
    """

    title: str
    series: list[str]
    svg: Markup
    summary: str


def charts(history: History) -> list[Chart]:
    """The charts of a run that have anything to show."""
    evaluations = Series("validation", [(each.step, each.loss) for each in history.evaluations])
    rows: list[tuple[str, list[Series], Callable[[float], str]]] = [
        ("Loss", [_series("training", history, lambda p: p.loss), evaluations], short),
        ("Reward", [_series("reward", history, lambda p: p.reward)], short),
        ("Learning rate", [_series("learning rate", history, lambda p: p.learning_rate)], short),
        ("Norm of the gradient before clipping", [_series("norm", history, lambda p: p.grad_norm)], short),
        ("Tokens per second", [_series("tokens per second", history, lambda p: p.tokens_per_second)], short),
        ("Peak memory of the first process", [_series("memory", history, lambda p: p.memory_bytes)], size),
    ]
    drawn = []
    for title, series, words in rows:
        lines = [line for line in series if line.points]
        if lines:
            drawn.append(
                Chart(title, [line.name for line in lines], draw(lines, history.resumed_at, words), _words(lines))
            )
    return drawn


def trial_charts(search: SearchRecord) -> list[Chart]:
    """The losses, or rewards, of the plan's own settings in a search, and of its best trial; none where neither has
    any."""
    best = search.summary.best
    numbers = {"the plan's settings": 0} | ({f"trial {best.number}": best.number} if best and best.number else {})
    curves = {trial.number: [(float(point.step), _figure(point)) for point in trial.curve] for trial in search.trials}
    lines = [Series(name, curves[number]) for name, number in numbers.items() if curves.get(number)]
    if not lines:
        return []
    return [
        Chart(
            "Reward in trials" if search.rewarded else "Loss in trials",
            [line.name for line in lines],
            draw(lines),
            _words(lines),
        )
    ]


def _figure(point: CurvePoint) -> float:
    figures = (point.reward, point.loss)
    return next((figure for figure in figures if figure is not None), 0.0)


def _series(name: str, history: History, value: Callable[[HistoryPoint], float | None]) -> Series:
    points = [(float(point.step), float(figure)) for point in history.points if (figure := value(point)) is not None]
    return Series(name, points)


def _words(lines: Sequence[Series]) -> str:
    sentences = []
    for line in lines:
        values = [value for _, value in line.points]
        sentences.append(
            f"{line.name}: {short(values[0])} at step {line.points[0][0]:.0f}, {short(values[-1])} at step "
            f"{line.points[-1][0]:.0f}, lowest {short(min(values))}, highest {short(max(values))}."
        )
    return " ".join(sentences)


def draw(lines: Sequence[Series], resumes: Sequence[int] = (), words: Callable[[float], str] = short) -> Markup:
    """The lines as SVG.

    Args:
        lines: at least one, each with at least one point of finite numbers.
        resumes: steps at which training resumed.
        words: how the vertical axis shows a value.
    """
    steps = [step for line in lines for step, _ in line.points]
    values = [value for line in lines for _, value in line.points]
    across = _scale(0.0, max(max(steps), 1.0), LEFT, WIDTH - RIGHT)
    marks = ticks(*_room(min(values), max(values)))
    up = _scale(marks[0], marks[-1], HEIGHT - BOTTOM, TOP)
    parts = [*_grid(marks, up, words), *_steps(max(steps), across)]
    parts += [
        f'<line class="resume" x1="{across(step):.1f}" x2="{across(step):.1f}" y1="{TOP:g}" y2="{HEIGHT - BOTTOM:g}"/>'
        for step in resumes
        if step <= max(steps)
    ]
    parts += [part for index, line in enumerate(lines) for part in _line(line, index, across, up)]
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-hidden="true">{"".join(parts)}</svg>'
    )


def _room(low: float, high: float) -> tuple[float, float]:
    """The range of the vertical axis: one value alone is in its middle, and 0 is shown where it is near."""
    if low == high:
        return (low - abs(low) / 2, high + abs(high) / 2) if low else (0.0, 1.0)
    return (0.0, high) if 0 < low < (high - low) else (low, high)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers, the first not above `low` and the last not below `high`."""
    step = 10.0 ** math.floor(math.log10((high - low) / TICKS))
    step *= next((factor for factor in (1, 2, 5) if (high - low) / (step * factor) <= TICKS), 10)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _grid(marks: list[float], up: Callable[[float], float], words: Callable[[float], str]) -> Iterator[str]:
    for mark in marks:
        y = up(mark)
        yield f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tick" x="{LEFT - 6:g}" y="{y + 3.5:.1f}" text-anchor="end">{words(mark)}</text>'


def _steps(last: float, across: Callable[[float], float]) -> Iterator[str]:
    for mark in ticks(0.0, max(last, 1.0)):
        if mark <= last and mark == int(mark):
            x, y = across(mark), HEIGHT - BOTTOM
            yield f'<text class="tick" x="{x:.1f}" y="{y + 14:g}" text-anchor="middle">{short(mark)}</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text class="tick" x="{middle:g}" y="{HEIGHT - 4:g}" text-anchor="middle">optimizer step</text>'


def _line(line: Series, index: int, across: Callable[[float], float], up: Callable[[float], float]) -> Iterator[str]:
    places = [f"{across(step):.1f},{up(value):.1f}" for step, value in line.points]
    if len(places) == 1:
        x, y = places[0].split(",")
        yield f'<circle class="dot s{index}" cx="{x}" cy="{y}" r="3"/>'
        return
    yield f'<polyline class="line s{index}" points="{" ".join(places)}"/>'
