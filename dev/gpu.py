"""The trainer's tests that need a GPU: `make gpu`, or `python -m dev.gpu [pytest arguments]`.

Without a GPU, the program reports that and fails; pytest alone would skip every test and pass.
"""

import subprocess
import sys

from dev.uv import ROOT

MARKER = "gpu"
COMMAND = (sys.executable, "-m", "pytest", "-m", MARKER, "trainer-image/tests")
NO_GPU = 1


def problem() -> str | None:
    """Why the tests cannot run here, or None."""
    import torch

    if torch.cuda.is_available():
        return None
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    return (
        f"no GPU: torch {torch.__version__} (built with {built}) finds none. "
        "Run this where `nvidia-smi` lists a GPU and CUDA_VISIBLE_DEVICES does not hide it."
    )


def main(arguments: list[str]) -> int:
    """Run the tests; returns pytest's exit code, or 1 where there is no GPU."""
    if message := problem():
        print(f"error: {message}", file=sys.stderr)
        return NO_GPU
    return subprocess.call([*COMMAND, *arguments], cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
