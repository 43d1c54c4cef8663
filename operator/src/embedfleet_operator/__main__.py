"""`python -m embedfleet_operator render -f FILE`: print the objects of a manifest, without a cluster."""

import argparse
import json
import sys
from pathlib import Path

import yaml
from pydantic import ValidationError

from embedfleet.api import EmbeddingService, problems
from embedfleet_operator import render
from embedfleet_operator.errors import CannotRender
from embedfleet_operator.render.site import INGRESS, SERVICE_MONITOR

_REFUSED = 2


def main(arguments: list[str]) -> int:
    """Run the command; exit status 2 when the manifest cannot be read, is not valid, or no pod can come of it."""
    chosen = _parser().parse_args(arguments)
    try:
        service = EmbeddingService.model_validate(yaml.safe_load(_text(chosen.file)))
        made = render.objects(service, _site(chosen))
    except ValidationError as error:
        return _refuse(chosen.file, [str(problem) for problem in problems(error)])
    except (CannotRender, OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        return _refuse(chosen.file, [str(error)])
    print(to_json(made), end="")
    return 0


def to_json(objects: list[render.Object]) -> str:
    """The objects as a person reads them."""
    return json.dumps(objects, indent=2, ensure_ascii=False) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m embedfleet_operator", description=render.__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("render", help="print the Kubernetes objects of a manifest as a JSON list")
    command.add_argument("-f", "--file", required=True, help="the manifest, YAML or JSON; - reads standard input")
    command.add_argument("--server-image", help="image of the server, for a manifest that names none")
    command.add_argument("--operator-namespace", help="where the operator's pods are, which read port 8081")
    command.add_argument("--api-server-cidr", action="append", default=[], help="address of the API server; repeatable")
    return parser


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
