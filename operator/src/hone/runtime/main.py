"""The operator's process: `python -m hone.runtime` or `hone-operator`. Options come from the environment (`--help`)."""

import argparse
import asyncio
import logging
import os
import signal
import sys

from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from hone.core.kinds import KINDS
from hone.runtime import logs
from hone.runtime.client import Client
from hone.runtime.election import Election, Lease, LeaseLost
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
    """Run until SIGTERM or SIGINT, until the watches fail, or until the Lease is lost. Returns the exit code."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    configuration = await login()
    operator = Operator(KINDS, configuration, options)
    election = _election(configuration, options, operator)
    server = Server(operator.metrics, lambda: (operator.ready or _waits(election)) and not stopping.is_set())
    await server.start(options.metrics_port, options.probe_port)
    stopped, running = asyncio.create_task(stopping.wait()), asyncio.create_task(_run(operator, election))
    tasks = [stopped, running, *([asyncio.create_task(election.hold())] if election else [])]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    # Kubernetes restarts a process that failed; nothing is lost, since all state is in the cluster.
    failures = [task.exception() or "the watches ended without an error" for task in tasks[1:] if task.done()]
    for failure in failures:
        log.error("ending: %s", failure)
    # Others may reconcile once the Lease is lost. Until running reconciles have ended, it is renewed.
    await operator.stop(at_once=any(isinstance(failure, LeaseLost) for failure in failures))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if election:
        await election.close()
    await server.stop()
    log.info("stopped")
    return 1 if failures else 0


def _election(configuration: Configuration, options: Options, operator: Operator) -> Election | None:
    """The election by the Lease that the options name, if they do, with connections of its own."""
    if not options.lease_name:
        return None
    lease = Lease(options.lease_namespace, options.lease_name, options.lease_seconds)
    return Election(Client(ApiClient(configuration), operator.metrics), lease, options.pod_name, operator.metrics)


def _waits(election: Election | None) -> bool:
    """Whether this process is ready to take over; as in other operators, such a pod counts as ready."""
    return election is not None and election.waits


async def _run(operator: Operator, election: Election | None) -> None:
    if election:
        await election.leads.wait()
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
