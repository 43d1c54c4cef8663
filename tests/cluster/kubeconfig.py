"""Kubeconfig files that need no other file: keys, certificates and tokens stand in them."""

import base64
import json
from pathlib import Path
from typing import Any

from tests.cluster.certificates import Pair, write_private

CONTEXT = "test"


def for_certificate(server: str, authority: bytes, pair: Pair) -> dict[str, Any]:
    """Of a user who is known by the certificate in `pair`; `server` is the API's URL."""
    user = {"client-certificate-data": _encoded(pair.certificate), "client-key-data": _encoded(pair.key)}
    return _config(server, authority, user)


def for_token(server: str, authority: bytes, token: str) -> dict[str, Any]:
    """Of whoever `token` is of: a service account."""
    return _config(server, authority, {"token": token})


def write(path: Path, config: dict[str, Any]) -> Path:
    """As JSON, which is YAML too; readable by its owner alone."""
    write_private(path, json.dumps(config, indent=1).encode())
    return path


def _config(server: str, authority: bytes, user: dict[str, Any]) -> dict[str, Any]:
    cluster = {"server": server, "certificate-authority-data": _encoded(authority)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": CONTEXT,
        "clusters": [{"name": CONTEXT, "cluster": cluster}],
        "users": [{"name": CONTEXT, "user": user}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT}}],
    }


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
