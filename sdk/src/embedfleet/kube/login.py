"""Exec login plug-ins: a program of the kubeconfig is run and prints a token or a certificate.

Where this is set down: Kubernetes, "client-go credential plugins", client.authentication.k8s.io/v1.
"""

import asyncio
import base64
import codecs
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from embedfleet.errors import LoginFailed
from embedfleet.kube.config import Plugin, Server
from embedfleet.portal import tell_user

LOGIN_SECONDS = 300.0
"""Longest wait for a plug-in: it may wait for a person at a browser."""
_EARLY_SECONDS = 10.0
"""A token is given up so long before its end, since a request takes time and clocks differ."""
_LAST_WORDS = 500


@dataclass(frozen=True, slots=True)
class Credential:
    """What a plug-in gave."""

    token: str | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    expires: datetime | None = None

    def is_good(self, now: datetime) -> bool:
        """Whether it may still be used."""
        return self.expires is None or (self.expires - now).total_seconds() > _EARLY_SECONDS


def read(plugin: Plugin, output: str) -> Credential:
    """The credential in what a plug-in printed; `LoginFailed` when there is none."""
    try:
        tree = json.loads(output)
        status = tree["status"]
        assert tree["kind"] == "ExecCredential"
        made = Credential(
            status.get("token") or None,
            _pem(status, "clientCertificateData"),
            _pem(status, "clientKeyData"),
            _time(status.get("expirationTimestamp")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        text = f"the login plug-in {plugin.command[0]!r} printed no ExecCredential"
        raise LoginFailed(f"{text}: {output[:80]!r}") from error
    if made.token is None and made.certificate is None:
        raise LoginFailed(f"the login plug-in {plugin.command[0]!r} gave neither a token nor a certificate")
    return made


async def run(plugin: Plugin, server: Server) -> Credential:
    """Run the plug-in; what it writes to standard error, its prompt among it, is shown as it comes.

    Raises `LoginFailed`: it is missing, fails, takes longer than `LOGIN_SECONDS` or prints something else.
    """
    interactive = _may_ask(plugin)
    told = os.environ | dict(plugin.environ) | {"KUBERNETES_EXEC_INFO": _info(plugin, server, interactive)}
    try:
        process = await asyncio.create_subprocess_exec(
            *plugin.command,
            env=told,
            stdin=None if interactive else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        hint = f"; {plugin.hint.strip()}" if plugin.hint else ""
        text = f"the kubeconfig's login plug-in {plugin.command[0]!r} cannot be run: {error.strerror}{hint}"
        raise LoginFailed(text) from error
    try:
        output, words = await asyncio.wait_for(_heard(process), LOGIN_SECONDS)
    except TimeoutError as error:
        text = f"the login plug-in {plugin.command[0]!r} was not done after {LOGIN_SECONDS:.0f} s"
        raise LoginFailed(text) from error
    finally:
        await _end(process)
    if process.returncode:
        last = " ".join(words[-_LAST_WORDS:].split()) or "it said nothing"
        text = f"the login plug-in {plugin.command[0]!r} failed with status {process.returncode}: {last}"
        raise LoginFailed(f"{text}. Log in again as its own documentation says")
    return read(plugin, output)


async def _heard(process: asyncio.subprocess.Process) -> tuple[str, str]:
    """What the process printed, and what it said on standard error, which is passed on."""
    assert process.stdout is not None
    assert process.stderr is not None
    output, words = await asyncio.gather(process.stdout.read(), _passed_on(process.stderr))
    await process.wait()
    return output.decode(errors="replace"), words


async def _passed_on(stream: asyncio.StreamReader) -> str:
    decoder, words = codecs.getincrementaldecoder("utf-8")(errors="replace"), ""
    while data := await stream.read(4096):  # not by lines: a prompt has no end of line
        text = decoder.decode(data)
        tell_user(text)
        words += text
    return words


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _may_ask(plugin: Plugin) -> bool:
    """Whether the plug-in gets the terminal as its standard input."""
    terminal = sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()
    if plugin.interactive == "Always" and not terminal:
        text = f"the login plug-in {plugin.command[0]!r} asks at a terminal (interactiveMode: Always) and there is none"
        raise LoginFailed(f"{text}; log in once in a terminal, or use a plug-in that does without")
    return terminal and plugin.interactive != "Never"


def _info(plugin: Plugin, server: Server, interactive: bool) -> str:
    spec: dict[str, Any] = {"interactive": interactive}
    if plugin.wants_cluster:
        ca = base64.b64encode(server.ca).decode() if server.ca else None
        told = {
            "server": server.url,
            "certificate-authority-data": ca,
            "insecure-skip-tls-verify": server.insecure or None,
            "tls-server-name": server.tls_server_name,
            "proxy-url": server.proxy,
        }
        spec["cluster"] = {key: value for key, value in told.items() if value is not None}
    return json.dumps({"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec})


def _pem(status: Mapping[str, Any], field: str) -> bytes | None:
    return str(status[field]).encode() if status.get(field) else None


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    made = datetime.fromisoformat(text)
    return made if made.tzinfo else made.replace(tzinfo=UTC)
