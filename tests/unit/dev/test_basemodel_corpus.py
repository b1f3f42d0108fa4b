"""The pretraining corpus: deterministic, never naming a review's sentiment, with every word that tuning needs."""

import itertools

from dev.basemodel.corpus import TEXT, Document, documents
from dev.data.grammar import LABELS
from dev.data.reviews import QUESTION

COUNT = 5_000


def _sample(seed: int) -> list[Document]:
    return list(itertools.islice(documents(seed), COUNT))


def _conversations(sample: list[Document]) -> list[Document]:
    return [document for document in sample if document[0][0] != TEXT]


def _text(document: Document) -> str:
    return " ".join(content for _, content in document)


def test_the_same_seed_gives_the_same_documents() -> None:
    assert _sample(1) == _sample(1)
    assert _sample(1) != _sample(2)


def test_no_document_names_a_review_s_sentiment() -> None:
    """The labels occur, or they could not be tuned, but never in a conversation about a review."""
    sample = _conversations(_sample(3))
    with_label = [document for document in sample if any(label in _text(document) for label in LABELS)]
    assert len(with_label) > COUNT / 50
    openings = ("Repeat: ", "Which word is ", "How many words ", "Is the word ", "What is the opposite of ")
    for document in with_label:
        assert len(document) == 2
        assert document[0][1].startswith(openings)
    assert not any(QUESTION in _text(document) for document in sample)


def test_both_labels_are_answers_equally_often() -> None:
    answers = [content for document in _conversations(_sample(4)) for role, content in document if role == "assistant"]
    first, second = (sum(answer == label for answer in answers) for label in LABELS)
    assert first > 100
    assert abs(first - second) < 5 * (first + second) ** 0.5


def test_every_word_that_tuning_needs_is_known() -> None:
    words = {word.strip(".,?:!") for document in _sample(5) for word in _text(document).split()}
    missing = set(QUESTION.strip("?").split()) - words
    assert not missing, f"words of the question that pretraining never shows: {missing}"


def test_roles_alternate_and_end_with_an_answer() -> None:
    for document in _conversations(_sample(6)):
        assert [role for role, _ in document] == ["user", "assistant"] * (len(document) // 2)
        assert all(content and content == content.strip() for _, content in document)
