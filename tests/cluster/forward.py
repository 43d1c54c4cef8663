"""The one way into a cluster of whole nodes: `python -m tests.cluster.forward FD PORT`.

A socket stays in the network it was made in, so this process, inside, accepts on one that was made outside.
"""

import asyncio
import contextlib
import socket
import sys

_CHUNK = 65536


async def forward(listener: socket.socket, port: int) -> None:
    """Every connection that `listener` takes becomes one to 127.0.0.1:`port`."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):  # one of both ends hung up
            there, thither = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_pipe(reader, thither), _pipe(there, writer))
            thither.close()
        writer.close()

    server = await asyncio.start_server(connected, sock=listener)
    await server.serve_forever()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK):
        writer.write(chunk)
        await writer.drain()
    writer.write_eof()


if __name__ == "__main__":
    asyncio.run(forward(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])))
