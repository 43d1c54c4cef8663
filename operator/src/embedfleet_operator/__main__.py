"""`python -m embedfleet_operator render -f FILE`: print the objects of a manifest, without a cluster."""

import argparse
import json
import sys
from pathlib import Path

import yaml
from pydantic import ValidationError

from embedfleet.api import EmbeddingService, problems
from embedfleet_operator import render

_REFUSED = 2


def main(arguments: list[str]) -> int:
    """Run the command; exit status 2 when the manifest cannot be read or is not valid."""
    chosen = _parser().parse_args(arguments)
    try:
        service = EmbeddingService.model_validate(yaml.safe_load(_text(chosen.file)))
    except ValidationError as error:
        return _refuse(chosen.file, [str(problem) for problem in problems(error)])
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        return _refuse(chosen.file, [str(error)])
    print(json.dumps(render.objects(service), indent=2, ensure_ascii=False))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m embedfleet_operator", description=render.__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("render", help="print the Kubernetes objects of a manifest as a JSON list")
    command.add_argument("-f", "--file", required=True, help="the manifest, YAML or JSON; - reads standard input")
    return parser


def _text(file: str) -> str:
    return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")


def _refuse(file: str, reasons: list[str]) -> int:
    print(f"{file}: not a valid manifest", *reasons, sep="\n  ", file=sys.stderr)
    return _REFUSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
