"""Peers that die without a word, as those of a lost node do: what comes to their sockets is dropped unseen."""

import ctypes
import socket
import struct

_SO_ATTACH_FILTER = 26  # Linux; the socket module has no name for it


def fall_silent(peer: socket.socket) -> None:
    """Drop every packet that comes to `peer` before TCP sees it: nothing is acknowledged, and nothing reset."""
    accept_nothing = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0
    program = struct.pack("HP", 1, ctypes.addressof(accept_nothing))
    peer.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
