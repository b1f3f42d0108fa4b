"""Ranks of a gang as processes of a test, without launchers: each trains several runs, and imports libraries once."""

import os
import subprocess
import sys
from pathlib import Path

from launchers import START_SECONDS, free_port


def train(*roots: Path, processes: int = 2) -> None:
    """Train the runs under `roots`, as `tiny.make_run` made them, one after the other, each to its end."""
    port, log = free_port(), roots[0] / "ranks.log"
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with log.open("wb") as output:
        ranks = [
            subprocess.Popen(
                [sys.executable, __file__, *map(str, roots)],
                env={**os.environ, **environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            for rank in range(processes)
        ]
        codes = [rank.wait(2 * START_SECONDS) for rank in ranks]
    assert not any(codes), log.read_text()[-8000:]


def _rank(roots: list[str]) -> None:
    from accelerate.state import AcceleratorState

    from hone_trainer import train as program
    from hone_trainer.protocol.status import StatusDir

    for root in map(Path, roots):
        AcceleratorState._reset_state()
        os.environ["HONE_RUN_CONFIG"] = str(root / "run.json")
        (root / "status").mkdir(exist_ok=True)
        program._train(int(os.environ["RANK"]), StatusDir(root / "status"))


if __name__ == "__main__":
    _rank(sys.argv[1:])
