"""Run the whole example, up to the tuned model's answer: `make demo`, or `python3 -m dev.demo`.

Starts the local cluster, builds the images, installs the chart, applies examples/tickets, shows the training, the plan
and the scores, waits for the endpoint, and asks the base and the tuned model about the same messages. If you run it
again, it reuses what is already there.

KUBECONFIG  your own cluster, instead of the local one; REGISTRY is then required
REGISTRY    the registry to push the images to and pull them from, such as registry.example.com/team
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

from dev import chat, install, uv
from dev.cluster import paths
from dev.images import values
from dev.kube import Kube, KubeError, Object, condition, is_true
from dev.watch import follow, plan_lines, score_lines

NAMESPACE = "hone-demo"
EXAMPLE = "tickets"
PYTHON = uv.ROOT / ".venv/bin/python"
MODEL_IMAGE = "hone-smollm2"
IMAGES = (*values.KEYS, MODEL_IMAGE)
TRAINING_SECONDS = 3600
SERVING_SECONDS = 1200
_began = time.monotonic()


class Failed(Exception):
    """What went wrong, and what the user can do."""


def headline(text: str) -> None:
    """Announce a step, with the time since the start."""
    seconds = int(time.monotonic() - _began)
    print(f"\n[{seconds // 60}:{seconds % 60:02d}] {text}", flush=True)


def module(python: str | Path, *arguments: str, **variables: str) -> None:
    """Run one of the project's own commands, with further environment variables. Its output goes to the terminal.

    Raises:
        Failed: naming the command.
    """
    environment = {**os.environ, **variables}
    command = [str(python), "-m", *arguments]
    code = subprocess.run(command, cwd=uv.ROOT, stdin=subprocess.DEVNULL, env=environment).returncode
    if code:
        raise Failed(f"`python3 -m {' '.join(arguments)}` failed (exit code {code}); its words are above")


def own_cluster() -> Path | None:
    """The kubeconfig of the user's cluster, or None where the local one is used."""
    configured = os.environ.get("KUBECONFIG")
    if not configured or Path(configured).absolute() == paths.kubeconfig():
        return None
    if not os.environ.get("REGISTRY"):
        raise Failed(
            "KUBECONFIG names a cluster of yours, so its nodes need a registry that they can pull from: "
            "REGISTRY=registry.example.com/team make demo. Without KUBECONFIG the demo uses a local cluster."
        )
    return Path(configured)


def prepare_cluster() -> Path:
    """Ensure a cluster and the images that it needs; returns its kubeconfig."""
    mine = own_cluster()
    early = None if mine else _build_early()
    try:
        headline("1/7 Python environment")
        module(sys.executable, "dev.venv", "--quick")
        headline("2/7 cluster")
        if mine:
            print(f"using the cluster of {mine}")
        else:
            module(sys.executable, "dev.cluster", "up")
    finally:
        if early:
            early.terminate()
            early.wait()
    headline("3/7 images")
    module(PYTHON, "dev.smollm2", "build")
    module(sys.executable, "dev.images", "build", *IMAGES)
    return mine or paths.kubeconfig()


def _build_early() -> subprocess.Popen[bytes]:
    """Start building the cluster's tools while the Python environment is downloaded; `up` continues from there."""
    command = ["nice", "-n", "10", sys.executable, "-m", "dev.cluster", "build"]
    return subprocess.Popen(
        command, cwd=uv.ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def deploy(kube: Kube) -> None:
    """Install the chart, bring the base model, apply the example."""
    references = install.images(MODEL_IMAGE)
    headline("4/7 operator and base model")
    install.install(kube, references)
    print(f"Hone runs in namespace {install.SYSTEM_NAMESPACE}")
    install.namespace(kube, NAMESPACE)
    install.base_models(kube, references[MODEL_IMAGE])
    print(f"SmolLM2-135M-Instruct is on PersistentVolumeClaim {install.MODEL_CLAIM} of namespace {NAMESPACE}")
    headline("5/7 kubectl apply --server-side -k examples/tickets")
    try:
        print(kube.run("apply", "--server-side", "-k", str(uv.ROOT / "examples/tickets")).rstrip())
    except KubeError as error:
        raise Failed(
            f"{error}\nIf examples/tickets has changed since the last demo: `make demo-down`, and again."
        ) from error


def train(kube: Kube) -> None:
    """Watch the job to its end, then show plan and scores."""
    headline("6/7 training")
    job = follow(kube, EXAMPLE, TRAINING_SECONDS)
    if not is_true(job, "Complete"):
        raise Failed(_why(kube, job))
    print("\n".join(plan_lines(job)))
    print("\n".join(score_lines(job)))


def _why(kube: Kube, job: Object) -> str:
    """Why a job did not complete, from its conditions."""
    status = job.get("status") or {}
    lines = [f"the FineTuneJob ended as {status.get('phase', 'unknown')}"]
    for kind in ("Failed", "Stalled"):
        if is_true(job, kind):
            current = condition(job, kind)
            lines.append(f"{kind}: {current['reason']}: {current['message']}")
    for attempt in status.get("attempts", []):
        if failure := attempt.get("failure"):
            hint = f" Hint: {failure['hint']}" if failure.get("hint") else ""
            number = f"{attempt['step']} {attempt['number']}"
            lines.append(f"attempt {number}: {failure['class']}: {failure['message']}{hint}")
    lines.append(f"more: kubectl --kubeconfig {kube.kubeconfig} -n {NAMESPACE} describe ftj {EXAMPLE}")
    lines.append("Once fixed: `make demo-down`, then run the demo again.")
    return "\n".join(lines)


def serve(kube: Kube) -> None:
    """Wait for the endpoint, and ask both models about messages that training has not seen."""
    headline("7/7 the endpoint")
    began, printed = time.monotonic(), ""

    def available(resource: Object) -> bool:
        nonlocal printed
        progressing = condition(resource, "Progressing")
        words = f"{progressing.get('reason', '')} {progressing.get('message', '')}".strip()
        if words and words != printed:
            printed = words
            print(f"  {int(time.monotonic() - began):4} s  {words}", flush=True)
        return is_true(resource, "Available")

    deployment = kube.wait("modeldeployment", EXAMPLE, available, "Available=True", SERVING_SECONDS, interval=2)
    status = deployment["status"]
    tuned = status.get("servedName") or EXAMPLE
    print(f"{status['url']}/v1 answers in the cluster. Asked from here, through `kubectl port-forward`:")
    with chat.endpoint(kube, deployment) as server:
        base = next(name for name in chat.models(server) if name != tuned)
        module(PYTHON, "dev.ask", server.url, base, tuned, HONE_KEY=server.key)


def cleanup() -> None:
    """Remove what the demo created: its namespace with all that is in it, and the release. The CRDs stay."""
    kube = Kube(own_cluster() or paths.kubeconfig())
    for name in (NAMESPACE, install.SYSTEM_NAMESPACE):
        print(f"deleting namespace {name}", flush=True)
        if name == install.SYSTEM_NAMESPACE:
            with contextlib.suppress(KubeError):
                install.uninstall(kube)
        kube.run("delete", "namespace", name, "--ignore-not-found", "--timeout=300s", seconds=330)


def main() -> int:
    """Run the demo; returns 0 once the tuned model has answered."""
    parser = argparse.ArgumentParser(
        prog="python3 -m dev.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cleanup", action="store_true", help="remove what the demo created")
    arguments = parser.parse_args()
    try:
        if arguments.cleanup:
            cleanup()
            return 0
        kube = Kube(prepare_cluster(), NAMESPACE)
        deploy(kube)
        train(kube)
        serve(kube)
    except (Failed, KubeError, RuntimeError, OSError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped. Everything in the cluster keeps running: `make demo` resumes, `make demo-down` removes it.")
        return 130
    seconds = int(time.monotonic() - _began)
    print(
        f"\nDone in {seconds // 60} min {seconds % 60} s. "
        "`make demo-down` removes what it created, `make cluster-down` the cluster."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
