"""Executes a Plan in its order: dry runs, children, then deletions, then status, then Events."""

from hone.core.observed import Object
from hone.core.plan import Plan
from hone.runtime.client import Client, ref_of
from hone.runtime.errors import Conflict, Refused
from hone.runtime.events import EventRecorder
from hone.runtime.generated_keys import with_keys

INVALID = 422
"""The object has a field that is not valid. A webhook that knows no dry runs is answered with 400."""


class WriteRefused(Exception):
    """The API server refused a child for good.

    Attributes:
        what: `<kind>/<name>` of the child.
        error: the API server's answer.
    """

    def __init__(self, what: str, error: Refused) -> None:
        super().__init__(f"{what}: {error}")
        self.what = what
        self.error = error


async def execute(client: Client, recorder: EventRecorder, resource: Object, plan: Plan) -> Object:
    """Execute the plan on the resource that it was computed for. Safe to interrupt at any point and to repeat.

    Args:
        client: the client.
        recorder: writes the Events.
        resource: the resource as it was read.
        plan: what to do.

    Returns:
        The resource with its new status.

    Raises:
        WriteRefused: a child is refused (403, 422); the status is not written.
        ApiError: any other error; the rest of the plan is not executed. A Conflict means that the observed state has
            changed: reconcile again.
    """
    namespace = resource["metadata"]["namespace"]
    for body in plan.rehearse:
        await _rehearse(client, namespace, body)
    for body in plan.create:
        await _create(client, namespace, body)
    for apply in plan.apply:
        try:
            await client.apply(namespace, apply.body, apply.field_manager)
        except Refused as error:
            raise WriteRefused(_what(apply.body), error) from error
    for delete in plan.delete:
        try:
            await client.delete(namespace, delete.ref, delete.uid)
        except Conflict:
            continue  # Re-created with the same name: another object, which is not ours to delete.
        except Refused as error:
            raise WriteRefused(f"{delete.ref.kind}/{delete.ref.name}", error) from error
    if plan.status is not None and plan.status != resource.get("status"):
        resource = await client.update_status(resource, plan.status)
    for event in plan.events:
        await recorder.record(resource, event)
    return resource


async def _create(client: Client, namespace: str, body: Object) -> None:
    """Create an object. A Secret may exist: the operator has no right to read any, so no Plan knows."""
    try:
        await client.create(namespace, with_keys(body))
    except Refused as error:
        raise WriteRefused(_what(body), error) from error
    except Conflict:
        if body["kind"] != "Secret":
            raise


async def _rehearse(client: Client, namespace: str, body: Object) -> None:
    """Ask whether the API server would accept an object. Other refusals, such as a quota's, are no fault of it."""
    try:
        await client.rehearse(namespace, body)
    except Conflict:
        return
    except Refused as error:
        if error.status == INVALID:
            raise WriteRefused(_what(body), error) from error


def _what(body: Object) -> str:
    ref = ref_of(body)
    return f"{ref.kind}/{ref.name}"
