"""The lock that commands of all clones share."""

import threading
from pathlib import Path

import pytest

from dev.cluster.say import wait_until
from dev.lock import locked


def test_a_second_command_says_what_it_waits_for_and_then_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, output, order = tmp_path / "new" / ".lock", [], []

    def second() -> None:
        with locked(file, "the first one"):
            order.append("second")

    def says_so() -> bool:
        output.append(capsys.readouterr().err)
        return "waiting for the first one" in "".join(output)

    thread = threading.Thread(target=second)
    with locked(file, "nobody"):
        thread.start()
        wait_until(says_so, "a line that says so", 60)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]
