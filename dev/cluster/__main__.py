"""`python3 -m dev.cluster`: the command line of the local cluster."""

import argparse
import shlex
import signal
import sys
from pathlib import Path

from dev.cluster import build, cluster, smoke
from dev.cluster.controlplane import ControlPlane


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m dev.cluster", description="Run a real single-node Kubernetes on this machine."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start the cluster, reuse a running one, or repair a broken one")
    commands.add_parser("down", help="remove the cluster; built tools, images and logs are kept")
    commands.add_parser("status", help="show what runs and what is wrong; exit code 0 if the cluster is ready")
    commands.add_parser("smoke", help="test DNS, Services and shared volumes on the cluster with two pods")
    commands.add_parser(
        "env", help='print shell commands that set KUBECONFIG and PATH: eval "$(python3 -m dev.cluster env)"'
    )
    plane = commands.add_parser(
        "control-plane", help="run a temporary control plane on free ports until interrupted; prints its kubeconfig"
    )
    plane.add_argument("--dir", type=Path, help="folder for its files while it runs (default: a new temporary folder)")
    plane.add_argument("--no-controllers", action="store_true", help="run only etcd and the API server")
    plane.add_argument("--kwok", action="store_true", help="also add a fake node whose pods are simulated")
    tools = commands.add_parser("build", help="build tools into the cache without starting anything")
    usual = [name for name, tool in build.TOOLS.items() if tool.by_default]
    named = f"any of {', '.join(build.TOOLS)} (default: {', '.join(usual)})"
    tools.add_argument("tools", nargs="*", metavar="tool", help=named)
    where = commands.add_parser("which", help="print the path of a command; builds it first if needed")
    where.add_argument("name", choices=sorted(build.commands()))
    arguments = parser.parse_args()
    match arguments.command:
        case "up":
            cluster.up()
        case "down":
            cluster.down()
        case "status":
            return cluster.status()
        case "smoke":
            cluster.require_ready()
            smoke.run()
        case "env":
            for name, value in cluster.environment().items():
                print(f"export {name}={shlex.quote(value)}")
        case "control-plane":
            run_control_plane(ControlPlane(not arguments.no_controllers, arguments.kwok, folder=arguments.dir))
        case "build":
            unknown = [name for name in arguments.tools if name not in build.TOOLS]
            if unknown:
                parser.error(f"unknown tool {', '.join(unknown)}: choose from {', '.join(build.TOOLS)}")
            build.ensure(arguments.tools or usual)
        case "which":
            build.ensure([build.tool_of(arguments.name)])
            print(build.binary(arguments.name))
    return 0


def run_control_plane(plane: ControlPlane) -> None:
    """Run it until SIGINT or SIGTERM."""
    stop = {signal.SIGINT, signal.SIGTERM}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with plane:
        print(plane.kubeconfig, flush=True)
        signal.pthread_sigmask(signal.SIG_BLOCK, stop)
        signal.sigwait(stop)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
