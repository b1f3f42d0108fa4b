"""The generated reviews: reproducible, balanced, in the right shapes, and beyond a bag of words."""

import json
import math
import random
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from dev.data import __main__ as command_line
from dev.data.formats import FORMATS
from dev.data.grammar import (
    ADJECTIVES,
    COMPARISONS,
    KINDS,
    LABELS,
    NEGATIVE,
    PLAIN,
    POSITIVE,
    Review,
    distinct_reviews,
    share,
    write_review,
)
from dev.data.reviews import MAX_ROWS, QUESTION, reviews

EXAMPLE = Path(__file__).parents[3] / "examples" / "data" / "reviews.jsonl"
EXAMPLE_ARGUMENTS = ["reviews", "--format", "chat", "--rows", "800", "--seed", "1"]


@pytest.fixture(scope="module")
def sample() -> list[Review]:
    return list(reviews(16_000, seed=11))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _naive_bayes_accuracy(train: list[tuple[list[str], str]], test: list[tuple[list[str], str]]) -> float:
    """Accuracy of multinomial naive Bayes with add-one smoothing."""
    counts: dict[str, Counter[str]] = {label: Counter() for label in LABELS}
    for features, label in train:
        counts[label].update(features)
    vocabulary = {feature for counter in counts.values() for feature in counter}
    totals = {label: sum(counts[label].values()) + len(vocabulary) for label in LABELS}

    def score(features: list[str], label: str) -> float:
        return sum(math.log((counts[label][feature] + 1) / totals[label]) for feature in features)

    return sum(max(LABELS, key=lambda label: score(features, label)) == truth for features, truth in test) / len(test)


def _split(sample: list[Review]) -> tuple[list[tuple[list[str], str]], list[tuple[list[str], str]]]:
    rows = [(_words(review.text), review.label) for review in sample]
    return rows[: len(rows) * 3 // 4], rows[len(rows) * 3 // 4 :]


@pytest.mark.slow
def test_bag_of_words_is_at_chance(sample: list[Review]) -> None:
    accuracy = _naive_bayes_accuracy(*_split(sample))
    assert 0.45 < accuracy < 0.55  # 4,000 held-out reviews: 6 standard errors


def test_the_classifier_would_notice_a_word_that_gives_it_away(sample: list[Review]) -> None:
    """The control: with one telling word in one of three reviews, the same classifier is far from chance."""
    rows = [
        ([*words, "hurrah" if label == POSITIVE else "alas"] if number % 3 == 0 else words, label)
        for number, (words, label) in enumerate((_words(review.text), review.label) for review in sample)
    ]
    assert _naive_bayes_accuracy(rows[:12_000], rows[12_000:]) > 0.6


@pytest.mark.parametrize("kind", KINDS)
def test_no_word_prefers_a_label_within_a_kind(kind: str, sample: list[Review]) -> None:
    """No word's share of positive reviews is further from one half than chance explains (5 standard errors)."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for review in sample:
        if review.kind == kind:
            for word in set(_words(review.text)):
                seen[word][review.label] += 1
    assert len(seen) > 100
    for word, labels in seen.items():
        total = labels.total()
        assert abs(labels[POSITIVE] - total / 2) <= 5 * math.sqrt(total) / 2 + 1, word


def test_labels_follow_the_grammar_where_a_rule_can_be_read_off(sample: list[Review]) -> None:
    """An independent reading of two templates and of negation comes to the same labels."""
    negators = {"not", "hardly", "far", "anything", "by", "never"}
    read = 0
    for review in sample:
        if review.kind == "contrast" and (match := re.search(r"(?:, but|, yet|However,) (.*?)\.", review.text)):
            deciding = match[1]
        elif review.kind == "contrast" and (match := re.match(r"(.*?), (?:although|even though) ", review.text)):
            # The opener may stand before it, as a sentence of its own.
            deciding = match[1].rpartition(". ")[2]
        elif review.kind == "negation":
            deciding = review.text
        else:
            continue
        words = _words(deciding)
        polarities = {label for label in LABELS if set(words) & set(ADJECTIVES[label])}
        if len(polarities) == 1:
            read += 1
            polarity = polarities.pop()
            if set(words) & negators:
                polarity = NEGATIVE if polarity == POSITIVE else POSITIVE
            assert polarity == review.label, review
    assert read > len(sample) / 4


@pytest.mark.parametrize("pair", COMPARISONS)
def test_comparisons_differ_by_places_alone(pair: tuple[str, str]) -> None:
    assert pair[0] != pair[1]
    assert sorted(_words(pair[0])) == sorted(_words(pair[1]))


def test_the_same_seed_gives_the_same_rows_and_more_rows_only_add() -> None:
    assert list(reviews(300, seed=7)) == list(reviews(300, seed=7))
    assert list(reviews(1_000, seed=7))[:300] == list(reviews(300, seed=7))
    assert list(reviews(300, seed=8)) != list(reviews(300, seed=7))


@pytest.mark.parametrize("rows", [1, 2, 599, 8_000])
def test_balanced_and_distinct(rows: int) -> None:
    drawn = list(reviews(rows, seed=2))
    assert len({review.text for review in drawn}) == len(drawn) == rows
    counts = Counter(review.label for review in drawn)
    assert abs(counts[POSITIVE] - counts[NEGATIVE]) <= rows % 2


def test_every_kind_has_its_share(sample: list[Review]) -> None:
    counts = Counter(review.kind for review in sample)
    assert sum(share(kind) for kind in KINDS) == pytest.approx(1)
    for kind in KINDS:
        assert counts[kind] / len(sample) == pytest.approx(share(kind), abs=0.03)


def test_opinions_are_on_parts_of_the_product_in_order(sample: list[Review]) -> None:
    for review in sample:
        places = [review.text.lower().index(aspect) for aspect, _ in review.opinions]
        assert places == sorted(places)
        polarities = [polarity for _, polarity in review.opinions]
        assert review.label in polarities
        assert len(set(polarities)) == len(polarities) == (2 if review.kind == "contrast" else 1)


def test_plain_reviews_are_in_no_data_set_but_can_be_asked_for(sample: list[Review]) -> None:
    assert PLAIN not in {review.kind for review in sample}
    assert write_review(random.Random(1), POSITIVE, kind=PLAIN).kind == PLAIN


@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_leaves_room(kind: str) -> None:
    assert distinct_reviews(kind) > 14 * share(kind) * MAX_ROWS / len(LABELS)


@pytest.mark.parametrize("rows", [0, -1, MAX_ROWS + 1])
def test_rows_beyond_the_bound_are_refused(rows: int, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"rows: {rows} is not between 1 and {MAX_ROWS}"):
        reviews(rows, seed=0)
    with pytest.raises(SystemExit) as stopped:
        command_line.main(["reviews", "--rows", str(rows), "--out", str(tmp_path / "data.jsonl")])
    assert stopped.value.code == 2
    assert "rows:" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name: str, tmp_path: Path, sample: list[Review]) -> None:
    out = tmp_path / "data.jsonl"
    assert command_line.main(["reviews", "--format", name, "--rows", "40", "--seed", "11", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    expected = {
        "chat": lambda review: {
            "messages": [
                {"role": "user", "content": f"{QUESTION}\n{review.text}"},
                {"role": "assistant", "content": review.label},
            ]
        },
        "prompt-completion": lambda review: {"prompt": f"{QUESTION}\n{review.text}\n", "completion": review.label},
        "text-label": lambda review: {"text": review.text, "label": review.label},
        "preference": lambda review: {
            "prompt": [{"role": "user", "content": f"{QUESTION}\n{review.text}"}],
            "chosen": [{"role": "assistant", "content": review.label}],
            "rejected": [{"role": "assistant", "content": {"positive": "negative"}.get(review.label, "positive")}],
        },
        "unpaired-preference": lambda review: {
            "prompt": [{"role": "user", "content": f"{QUESTION}\n{review.text}"}],
            "completion": [{"role": "assistant", "content": answers[review.text]}],
            "label": answers[review.text] == review.label,
        },
        "prompt": lambda review: {
            "prompt": [{"role": "user", "content": f"How many stars is this review worth?\n{review.text}"}],
            "reference": {"positive": "Four stars.", "negative": "Two stars."}[review.label],
        },
    }[name]
    if name == "unpaired-preference":
        answers = {row["prompt"][0]["content"].partition("\n")[2]: row["completion"][0]["content"] for row in rows}
        assert 10 < sum(row["label"] for row in rows) < 30
    assert rows == [expected(review) for review in sample[:40]]
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]


def test_writes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["reviews", "--rows", "3", "--seed", "11"]) == 0
    assert len([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == 3


def test_the_example_is_what_its_command_makes_and_fits_a_config_map(tmp_path: Path) -> None:
    out = tmp_path / "reviews.jsonl"
    assert command_line.main([*EXAMPLE_ARGUMENTS, "--out", str(out)]) == 0
    assert out.read_bytes() == EXAMPLE.read_bytes()
    assert EXAMPLE.stat().st_size <= 200_000
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) >= 500
