"""Measures a rank's memory from outside; Python imports this first where its directory is on PYTHONPATH.

HONE_TEST_MEMORY names the file to write, to which the rank's number is added; HONE_TEST_IMPORTS what to import before
the level is taken.
"""

import os

# RANK: torchrun has it for ranks alone.
if os.environ.get("HONE_TEST_MEMORY") and "RANK" in os.environ:
    import importlib
    import json
    from pathlib import Path

    def _status(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))

    for name in os.environ["HONE_TEST_IMPORTS"].split():
        importlib.import_module(name)
    level = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on (proc(5))
    leave = os._exit

    def _leave(code: int) -> None:
        figures = {"level": level, "rise": _status("VmHWM") - level}
        Path(f"{os.environ['HONE_TEST_MEMORY']}-{os.environ['RANK']}").write_text(json.dumps(figures))
        leave(code)

    os._exit = _leave
