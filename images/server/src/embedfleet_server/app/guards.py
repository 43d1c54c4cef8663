"""What is told of the files that guard the public port: how many were wrong, never what they hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedfleet_server.app.keys import Keys
from embedfleet_server.app.tls import Tls


@dataclass(frozen=True, slots=True)
class Guards:
    """None where the port is open, or plain."""

    keys: Keys | None = None
    tls: Tls | None = None

    def state(self) -> dict[str, Any]:
        """As `/state` shows them; null where there is none."""
        keys, tls = self.keys, self.tls
        return {
            "keys": None
            if keys is None
            else {"keys": len(keys.ring.entries), "tenants": len(keys.ring.tenants), "rejected": keys.rejected},
            "tls": None if tls is None else {"rejected": tls.rejected},
        }

    def rejected(self) -> Mapping[str, int]:
        """Mistakes found in the files of each kind since the start."""
        found = {"keys": self.keys, "tls": self.tls}
        return {kind: guard.rejected for kind, guard in found.items() if guard is not None}
