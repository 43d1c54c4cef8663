"""Asking a starting cluster how far it is."""

import json
import ssl
import urllib.request
from pathlib import Path
from typing import Any


class Api:
    """The API server at `url`, asked as the administrator whose certificate lies in `keys`."""

    def __init__(self, url: str, keys: Path) -> None:
        self.url = url
        tls = ssl.create_default_context(cafile=str(keys / "ca.crt"))
        tls.load_cert_chain(keys / "admin.crt", keys / "admin.key")
        without_proxy = urllib.request.ProxyHandler({})
        self._opener = urllib.request.build_opener(without_proxy, urllib.request.HTTPSHandler(context=tls))

    def get(self, path: str) -> bytes | None:
        """What is at `path`; `None` while there is no such answer."""
        try:
            with self._opener.open(self.url + path, timeout=5) as answer:
                content: bytes = answer.read()
                return content
        except OSError:  # refused, not there, not yet allowed
            return None

    def ready(self) -> bool:
        """Whether it serves, with the roles that are there from the start."""
        return self.get("/readyz") is not None

    def has_default_account(self) -> bool:
        """Whether the controllers run: without this service account no pod can be made."""
        return self.get("/api/v1/namespaces/default/serviceaccounts/default") is not None

    def ready_nodes(self) -> int:
        """How many nodes are Ready."""
        answer = self.get("/api/v1/nodes")
        return sum(map(_is_ready, json.loads(answer)["items"])) if answer else 0


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = node["status"].get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
