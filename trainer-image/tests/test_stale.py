"""What a killed pod left half-written is removed after a day, unless somebody still writes to it."""

import os
import time
from pathlib import Path

from hone_trainer.protocol.files import remove_stale

DAYS_AGO = time.time() - 3 * 24 * 3600


def test_a_directory_that_is_written_to_below_stays(tmp_path: Path) -> None:
    for name in (".new-old", ".new-written"):
        (tmp_path / name / "rows").mkdir(parents=True)
        (tmp_path / name / "rows" / "a.part").write_text("a")
        for path in (tmp_path / name / "rows" / "a.part", tmp_path / name / "rows", tmp_path / name):
            os.utime(path, (DAYS_AGO, DAYS_AGO))
    os.utime(tmp_path / ".new-written" / "rows" / "a.part")
    remove_stale(tmp_path, ".new-")
    assert [path.name for path in tmp_path.iterdir()] == [".new-written"]
