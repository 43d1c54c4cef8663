"""`python -m tests.unit.simulation.replay SEED`: one world again, with everything that happened in it."""

import sys

from tests.unit.simulation.invariants import Broken
from tests.unit.simulation.plan import Plan, draw
from tests.unit.simulation.world import World, live


def command(seed: int) -> str:
    """The line that replays a seed."""
    return f"python -m tests.unit.simulation.replay {seed}"


def main(seed: int) -> int:
    """Print plan and events; 1 when an invariant does not hold."""
    plan = draw(seed)
    _show_plan(plan)
    world = World(plan)
    try:
        live(world)
    except (Broken, Exception) as error:  # noqa: BLE001  # whatever it is, the events before it are what is wanted
        _show_events(world)
        print(f"{type(error).__name__}: {error}")
        return 1
    _show_events(world)
    print("every invariant holds")
    return 0


def _show_plan(plan: Plan) -> None:
    print(f"{plan.kind} world: {', '.join(sorted(plan.habits))}")
    for part in (*plan.models, plan.settings, *plan.requests, *plan.changes, *plan.away):
        print(part)
    rest = ("stop_at", "patience", "stops", "start_seconds", "seconds_per_token", "encode_seconds", "blips")
    print(", ".join(f"{name} {getattr(plan, name)}" for name in rest))


def _show_events(world: World) -> None:
    for at, *event in world.log:
        print(f"{at:12.6f}", *event)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
