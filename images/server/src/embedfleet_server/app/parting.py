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
_LOOK_SECONDS = 0.01
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


class Options(Protocol):
    """A socket whose options can be set."""

    def setsockopt(self, level: int, option: int, value: bytes, /) -> None:
        """As a socket has it."""


async def part(runner: Runner, seconds: float) -> None:
    """Close the listeners without a reset; then answer what is on its way, for at most `seconds`."""
    for listener in _listeners(runner):
        stop_handshakes(listener)
    await asyncio.sleep(_HANDSHAKE_SECONDS)  # meanwhile all that the kernel has taken is accepted
    for site in list(runner.sites):
        await site.stop()
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while (now := loop.time()) < until and runner.awaits_request(now - seconds):  # noqa: ASYNC110  # time may end it too
        await asyncio.sleep(_LOOK_SECONDS)


def stop_handshakes(listener: Options) -> None:
    """Let the kernel begin no connection more; those that have begun are kept.

    Who knocks meanwhile gets no answer, knocks again after a second (RFC 6298) and finds the listener closed. On a
    system without such filters nothing changes: what comes within the last microseconds may be reset there.
    """
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _PROGRAM))
    with contextlib.suppress(OSError):
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_PROGRAM), ctypes.addressof(program))
        )


def _listeners(runner: Runner) -> Iterator[Options]:
    for site in runner.sites:
        server = getattr(site, "_server", None)  # aiohttp offers no other way to a site's sockets
        yield from () if server is None else server.sockets
