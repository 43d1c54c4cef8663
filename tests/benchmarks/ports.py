"""Free ports on loopback."""

import socket


def free_port() -> int:
    """A port that nothing listens on now; whoever is told it has to hurry."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
