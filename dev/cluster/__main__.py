"""`python3 -m dev.cluster`: the command line of the local cluster."""

import argparse
import shlex
import sys

from dev.cluster import build, cluster


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m dev.cluster", description="A real single-node Kubernetes on this machine."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start the cluster, adopt a running one, or repair a broken one")
    commands.add_parser("down", help="remove the cluster; built tools, images and logs stay")
    commands.add_parser("status", help="what runs and what is wrong; exit code 0 when ready")
    commands.add_parser("env", help='shell lines that set KUBECONFIG and PATH: eval "$(python3 -m dev.cluster env)"')
    tools = commands.add_parser("build", help="build tools into the cache without starting anything")
    tools.add_argument("tools", nargs="*", metavar="tool", help=f"any of {', '.join(build.TOOLS)}; default all")
    where = commands.add_parser("which", help="print the path of a built command, building it first when needed")
    where.add_argument("name", choices=sorted(build.commands()))
    arguments = parser.parse_args()
    match arguments.command:
        case "up":
            cluster.up()
        case "down":
            cluster.down()
        case "status":
            return cluster.status()
        case "env":
            for name, value in cluster.environment().items():
                print(f"export {name}={shlex.quote(value)}")
        case "build":
            unknown = [name for name in arguments.tools if name not in build.TOOLS]
            if unknown:
                parser.error(f"unknown tool {', '.join(unknown)}: choose from {', '.join(build.TOOLS)}")
            build.ensure(arguments.tools or build.TOOLS)
        case "which":
            build.ensure([build.tool_of(arguments.name)])
            print(build.binary(arguments.name))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, TimeoutError) as error:
        sys.exit(f"error: {error}")
