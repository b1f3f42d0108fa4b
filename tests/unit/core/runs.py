"""A FineTuneJob brought to each of its steps, for the tables."""

from typing import Any

from tests.unit.core import make
from tests.unit.core.fake_cluster import World, finetunejob_world


def preparing(**spec: Any) -> World:
    """A world in which prepare is about to run."""
    world = finetunejob_world(**spec)
    world.settle()
    return world


def training(**spec: Any) -> World:
    """A world in which all trainer pods run."""
    world = preparing(**spec)
    world.complete(make.prepared())
    world.settle()
    world.start()
    world.settle()
    return world


def finishing(**spec: Any) -> World:
    """A world in which training has ended well."""
    world = training(**spec)
    world.complete(make.trained())
    world.settle()
    return world


def results(world: World) -> list[tuple[str, int, str]]:
    """Step, number and result of each attempt."""
    return [(a["step"], a["number"], a["result"]) for a in world.status["attempts"]]
