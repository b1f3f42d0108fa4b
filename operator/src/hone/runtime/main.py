"""The operator's process: `python -m hone.runtime` or `hone-operator`. Options come from the environment (`--help`)."""

import argparse
import asyncio
import logging
import os
import signal
import sys

from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from hone.core.kinds import KINDS
from hone.runtime import logs
from hone.runtime.operator import Operator
from hone.runtime.options import OptionError, Options, from_environment, table
from hone.runtime.web import Server

SWITCH_SECONDS = 0.0005
"""How long a thread may keep Python from the others that wait. By default it is ten times as long: at each answer of
the API server, a reconcile would wait that long for the thread that reads the events of watches."""
log = logging.getLogger(__name__)


async def login() -> Configuration:
    """How to reach the API server: by KUBECONFIG if it is set, by the pod's service account, or by ~/.kube/config.

    Raises:
        ConfigException: none of them exists.
    """
    configuration = Configuration()
    configuration.retries = False  # The queue retries failed calls with back-off.
    if not os.environ.get("KUBECONFIG"):
        try:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            return configuration
        except ConfigException:
            pass
    await load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    return configuration


async def serve(options: Options) -> int:
    """Run until SIGTERM or SIGINT, or until the watches fail. Returns the exit code."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    operator = Operator(KINDS, await login(), options)
    server = Server(operator.metrics, lambda: operator.ready and not stopping.is_set())
    await server.start(options.metrics_port, options.probe_port)
    running, stopped = asyncio.create_task(_run(operator)), asyncio.create_task(stopping.wait())
    await asyncio.wait({stopped, running}, return_when=asyncio.FIRST_COMPLETED)
    code = 0
    if running.done():
        # Kubernetes restarts us; nothing is lost, since all state is in the cluster.
        log.error("the watches ended: %s", running.exception() or "without an error")
        code = 1
    await operator.stop()
    for task in (running, stopped):
        task.cancel()
    await server.stop()
    log.info("stopped")
    return code


async def _run(operator: Operator) -> None:
    await operator.wait_for_kinds()
    operator.start()
    log.info("started")
    await operator.wait()


def main() -> int:
    """Entry point; returns the exit code."""
    width = max(len(name) for name, _ in table())
    environment = "\n".join(f"  {name:<{width}}  default: {default or 'empty'}" for name, default in table())
    parser = argparse.ArgumentParser(
        prog="hone-operator",
        description="Reconciles FineTuneJobs and ModelDeployments. Connects to the API server with KUBECONFIG, or "
        "with the pod's service account.",
        epilog=f"environment:\n{environment}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()
    try:
        options = from_environment()
    except OptionError as error:
        parser.error(str(error))
    logs.configure(options.log_level)
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        return asyncio.run(serve(options))
    except (ConfigException, OSError) as error:
        log.error("cannot start: %s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
