"""Each hostile source is refused with words, and leaves no file that anything reads; docs/sources.md shows these words.

To write the page again: `HONE_WRITE_DOCS=1 pytest trainer-image/tests/test_hostile_sources.py`, in one process.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import hub_server
import pytest
import store_server
from hostile_sources import ROWS, Meeting, outcome
from store_server import Store
from test_https import Site, site

from hone_trainer.downloads.remote import Unreachable
from hone_trainer.protocol.errors import BadInput

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "sources.md"
BLOCK = re.compile(r"(<!-- seen: hostile sources -->\n)(.*?)(<!-- end -->)", re.DOTALL)
HEAD = "\n| what the source does | what the job or server shows |\n|---|---|\n"
SEEN: dict[str, str] = {}

__all__ = ["site"]


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    """A store for all rows."""
    with store_server.serving() as store:
        yield store


@pytest.fixture
def meeting(server: Store, site: Site, tmp_path: Path) -> Iterator[Meeting]:
    """All servers as they are at first."""
    server.__init__(url=server.url)  # type: ignore[misc]
    server.put({"data/a.jsonl": b"{}\n"})
    files = {"config.json": b"{}", "model.safetensors": b"weights"}
    (tmp_path / "workspace").mkdir()
    with hub_server.serving(hub_server.Hub(commits={hub_server.COMMIT: files})) as hub:
        yield Meeting(tmp_path / "workspace", hub, server, site)


def shown() -> dict[str, str]:
    """The rows of the page."""
    match = BLOCK.search(PAGE.read_text(encoding="utf-8"))
    assert match, PAGE
    cells = [line.strip("| ").partition(" | ") for line in match[2].splitlines()[3:] if line]
    return {what: words for what, _, words in cells}


@pytest.mark.parametrize(("what", "meet"), [pytest.param(*row[1:], id=row[0]) for row in ROWS])
def test_it_is_refused_with_words(meeting: Meeting, what: str, meet: Callable[[Meeting], object]) -> None:
    with pytest.raises((BadInput, Unreachable)) as caught:
        meet(meeting)
    if isinstance(caught.value, BadInput):
        assert caught.value.field.startswith("spec.")
        assert caught.value.hint, "it says what to do"
    used = [meeting.workspace / name for name in ("models/a-model", "data/a-train", "artifact")]
    assert not any(path.exists() for path in used), "nothing that a later step would read"
    SEEN[what] = outcome(caught.value, meeting)
    if "HONE_WRITE_DOCS" not in os.environ:
        assert shown().get(what) == SEEN[what]


def test_the_page_has_each_of_them_once() -> None:
    if "HONE_WRITE_DOCS" in os.environ:
        lines = "".join(f"| {what} | {SEEN[what]} |\n" for _, what, _ in ROWS)
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(BLOCK.sub(lambda match: f"{match[1]}{HEAD}{lines}\n{match[3]}", text), encoding="utf-8")
    assert list(shown()) == [what for _, what, _ in ROWS]
    assert len(ROWS) >= 40
