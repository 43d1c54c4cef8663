"""The end of the public port: who has got a connection is answered, and who gets none knows that nothing was sent.

A listener that closes resets connections that the kernel has taken and nobody has accepted yet, and a connection that
closes while a request is on its way is reset as well. Either way its client cannot know whether the request was
accepted. That matters where a service's only server leaves: its clients come to it to the last moment.
"""

import asyncio
import contextlib
import ctypes
import socket
import struct
from collections.abc import Iterator
from typing import Protocol

from embedfleet_server.app.connections import Runner

_HANDSHAKE_SECONDS = 0.02
"""For handshakes under way to end: ten round trips between zones of a region (1 to 2 ms)."""
_AGAIN_SECONDS = 1.2  # a client knocks again after one second (RFC 6298, 2.1), and its timers may be late
_LOOK_SECONDS = 0.01
_SO_MEMINFO, _DROPS = 55, 8  # asm-generic/socket.h, and which of its numbers (SK_MEMINFO_DROPS, sock_diag.h)
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h; Python's socket has no name for it
_DROP, _KEEP = 0, 0xFFFFFFFF  # how many bytes of a packet to keep
_FLAGS, _SYN, _SYN_OR_ACK = 13, 0x02, 0x12  # RFC 9293, 3.1: which byte of a TCP header, which bits of it
_PROGRAM = (
    (0x30, 0, 0, _FLAGS),  # load that byte (BPF_LD | BPF_B | BPF_ABS)
    (0x54, 0, 0, _SYN_OR_ACK),  # of it these bits (BPF_ALU | BPF_AND)
    (0x15, 0, 1, _SYN),  # the first alone: it begins a connection (BPF_JMP | BPF_JEQ)
    (0x06, 0, 0, _DROP),  # BPF_RET
    (0x06, 0, 0, _KEEP),
)
"""Classic BPF (filter.txt of the Linux kernel), which needs no privilege. A listener's filter sees the TCP header."""


class Listener(Protocol):
    """A socket that listens."""

    def setsockopt(self, level: int, option: int, value: bytes, /) -> None:
        """As a socket has it."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """As a socket has it."""


async def part(runner: Runner, seconds: float) -> None:
    """Close the listeners without a reset; then answer what is on its way, for at most `seconds`."""
    listeners, loop = list(_listeners(runner)), asyncio.get_running_loop()
    before = [dropped(listener) for listener in listeners]
    for listener in listeners:
        stop_handshakes(listener)
    began = loop.time()
    await asyncio.sleep(_HANDSHAKE_SECONDS)  # meanwhile all that the kernel has taken is accepted
    has_knocked = before != [dropped(listener) for listener in listeners]
    for site in list(runner.sites):
        await site.stop()
    until = loop.time() + seconds
    while (now := loop.time()) < until and runner.awaits_request(now - seconds):  # noqa: ASYNC110  # time may end it too
        await asyncio.sleep(_LOOK_SECONDS)
    await asyncio.sleep(rest(has_knocked, began, loop.time()))


def rest(has_knocked: bool, began: float, now: float) -> float:
    """Seconds until who found no answer has knocked again, and been refused: until then this address must live."""
    return max(0.0, began + _AGAIN_SECONDS - now) if has_knocked else 0.0


def stop_handshakes(listener: Listener) -> None:
    """Let the kernel begin no connection more; those that have begun are kept.

    Who knocks meanwhile gets no answer and knocks again after a second. On a system without such filters nothing
    changes: what comes within the last microseconds may be reset there.
    """
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _PROGRAM))
    with contextlib.suppress(OSError):
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_PROGRAM), ctypes.addressof(program))
        )


def dropped(listener: Listener) -> int:
    """How many packets the kernel has dropped that were for it; 0 where it does not tell."""
    try:
        told = listener.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * _DROPS + 4)
    except OSError:
        return 0
    return int(struct.unpack("I", told[-4:])[0]) if len(told) == 4 * _DROPS + 4 else 0


def _listeners(runner: Runner) -> Iterator[Listener]:
    for site in runner.sites:
        server = getattr(site, "_server", None)  # aiohttp offers no other way to a site's sockets
        yield from () if server is None else server.sockets
