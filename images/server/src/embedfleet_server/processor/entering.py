"""Through the door, with or without waiting for room: from a thread, and from an event loop."""

import asyncio
import threading

from embedfleet_server.engine.errors import QueueFull
from embedfleet_server.processor.door import Door, Place
from embedfleet_server.processor.loop_thread import finished
from embedfleet_server.processor.request import Request


def enter(door: Door, request: Request, timeout: float | None) -> None:
    """Block at most `timeout` seconds; None or 0 raises `QueueFull` at once."""
    if not timeout or timeout < 0:
        door.enter(request)
        return
    place = door.line_up(request)
    try:
        place.result(min(timeout, threading.TIMEOUT_MAX))
    except TimeoutError:
        _raise_no_room(door, place, timeout)
    finally:
        door.leave_line(place)


async def enter_async(door: Door, request: Request, timeout: float | None) -> None:  # noqa: ASYNC109
    """The same, awaited."""
    if not timeout or timeout < 0:
        door.enter(request)
        return
    place = door.line_up(request)
    try:
        await asyncio.wait_for(finished(place), timeout)
        place.result()
    except TimeoutError:
        _raise_no_room(door, place, timeout)
    finally:
        door.leave_line(place)


def _raise_no_room(door: Door, place: Place, timeout: float) -> None:
    """`QueueFull`, unless there was room at the very last moment."""
    if door.leave_line(place):
        raise QueueFull(f"the queue is full: there was no room within {timeout} s", door.retry_after) from None
    place.result()
