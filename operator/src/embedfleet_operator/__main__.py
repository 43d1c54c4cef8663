"""`python -m embedfleet_operator`: look after a cluster's EmbeddingServices; `render` prints objects without one."""

import argparse
import asyncio
import json
import logging
import secrets
import signal
import socket
import sys
from pathlib import Path

from pydantic import ValidationError

from embedfleet.api import EmbeddingService, problems
from embedfleet_operator import manifest, render
from embedfleet_operator.configuration import Configuration
from embedfleet_operator.errors import CannotRender, ManifestUnreadable, NoAccess
from embedfleet_operator.render.site import INGRESS, SERVICE_MONITOR

_REFUSED = 2
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where a pod finds its own namespace."""

_EXPECTED = ("kopf._core.reactor.running", "kopf._core.reactor.observation")
"""What they warn of is so by design: no signals for kopf, types that this cluster lacks."""


def main(arguments: list[str]) -> int:
    """Run the command; exit status 2 when a manifest or the way to a cluster cannot be read or used."""
    named = arguments[:1] and arguments[0] in ("run", "render", "-h", "--help")
    chosen = _parser().parse_args(arguments if named else ["run", *arguments])
    return _render(chosen) if chosen.command == "render" else _run(chosen)


def to_json(objects: list[render.Object]) -> str:
    """The objects as a person reads them."""
    return json.dumps(objects, indent=2, ensure_ascii=False) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m embedfleet_operator", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    _add_run(commands.add_parser("run", help="look after the EmbeddingServices of a cluster (the default)"))
    command = commands.add_parser("render", help="print the Kubernetes objects of a manifest as a JSON list")
    command.add_argument("-f", "--file", required=True, help="the manifest, YAML or JSON; - reads standard input")
    _add_site(command)
    return parser


def _add_site(command: argparse.ArgumentParser) -> None:
    command.add_argument("--server-image", help="image of the server, for a manifest that names none")
    command.add_argument("--operator-namespace", help="where the operator's pods are, which read port 8081")
    command.add_argument("--api-server-cidr", action="append", default=[], help="address of the API server; repeatable")


def _add_run(command: argparse.ArgumentParser) -> None:
    _add_site(command)
    command.add_argument("--kubeconfig", type=Path, help="default: the pod's own account, or what kubectl would take")
    command.add_argument("--context", help="of the kubeconfig; default: its current one")
    command.add_argument(
        "-n", "--namespace", action="append", default=[], help="look only here; repeatable; default: all namespaces"
    )
    command.add_argument(
        "--resync-seconds", type=_seconds, default=Configuration.resync_seconds, help="between looks at every service"
    )
    command.add_argument("--lease-namespace", help="default: the operator's own, the first one looked at, or default")
    command.add_argument("--lease-name", default=Configuration.lease_name, help="by which replicas agree who leads")
    command.add_argument(
        "--lease-seconds",
        type=_lease_seconds,
        default=Configuration.lease_seconds,
        help="until a killed leader is followed",
    )
    command.add_argument("--observe-host", default=Configuration.observe_host, help="address of /live and /ready")
    command.add_argument("--observe-port", type=int, default=Configuration.observe_port, help="their port; 0: none")
    command.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 1 <= seconds <= 3600:  # below it is a busy loop, above it repairs nothing
        raise argparse.ArgumentTypeError(f"{text!r} must be from 1 to 3600")
    return seconds


def _lease_seconds(text: str) -> int:
    seconds = int(text)
    if not 2 <= seconds <= 300:  # below it a slow answer costs the lead, above it nobody leads for too long
        raise argparse.ArgumentTypeError(f"{text!r} must be from 2 to 300")
    return seconds


def _run(chosen: argparse.Namespace) -> int:
    logging.basicConfig(level=chosen.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("kopf").setLevel(logging.DEBUG if chosen.log_level == "debug" else logging.WARNING)
    for name in _EXPECTED:
        logging.getLogger(name).setLevel(logging.DEBUG if chosen.log_level == "debug" else logging.ERROR)
    try:
        asyncio.run(_operate(_configuration(chosen)))
    except NoAccess as error:
        print(error, file=sys.stderr)
        return _REFUSED
    return 0


async def _operate(configuration: Configuration) -> None:
    from embedfleet_operator.run import Operator  # kopf and the client library, which `render` needs not

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await Operator(configuration).run(stop)


def _configuration(chosen: argparse.Namespace) -> Configuration:
    home = chosen.operator_namespace or _own_namespace()
    return Configuration(
        identity=f"{socket.gethostname()}_{secrets.token_hex(4)}",
        kubeconfig=chosen.kubeconfig,
        context=chosen.context,
        namespaces=tuple(chosen.namespace),
        server_image=chosen.server_image,
        operator_namespace=home,
        api_server_cidrs=tuple(chosen.api_server_cidr),
        resync_seconds=chosen.resync_seconds,
        lease_namespace=chosen.lease_namespace or home or next(iter(chosen.namespace), "default"),
        lease_name=chosen.lease_name,
        lease_seconds=chosen.lease_seconds,
        observe_host=chosen.observe_host,
        observe_port=chosen.observe_port or None,
    )


def _own_namespace() -> str | None:
    return _NAMESPACE_FILE.read_text(encoding="utf-8").strip() if _NAMESPACE_FILE.is_file() else None


def _render(chosen: argparse.Namespace) -> int:
    try:
        service = EmbeddingService.model_validate(manifest.read(_text(chosen.file)))
        made = render.objects(service, _site(chosen))
    except ValidationError as error:
        return _refuse(chosen.file, [str(problem) for problem in problems(error)])
    except ManifestUnreadable as error:
        return _refuse(chosen.file, error.reasons)
    except (CannotRender, OSError, UnicodeDecodeError) as error:
        return _refuse(chosen.file, [str(error)])
    print(to_json(made), end="")
    return 0


def _site(chosen: argparse.Namespace) -> render.Site:
    """A cluster that has every optional type."""
    return render.Site(
        server_image=chosen.server_image,
        operator_namespace=chosen.operator_namespace,
        apis=frozenset([INGRESS, SERVICE_MONITOR]),
        api_server_cidrs=tuple(chosen.api_server_cidr),
    )


def _text(file: str) -> str:
    return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")


def _refuse(file: str, reasons: list[str]) -> int:
    print(f"{file}: not a valid manifest", *reasons, sep="\n  ", file=sys.stderr)
    return _REFUSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
