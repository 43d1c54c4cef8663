"""Write what follows from the contract (the CRD, the chart's copy, docs/reference.md), from the operator's tables
(its roles, part of docs/operations.md), and from the chart's (values, their schema, part of its README, dashboard).

`python -m tools.generate` writes; with `--check` it writes nothing, names what differs and exits 1.
"""

import argparse
import sys
from pathlib import Path

import yaml

from embedfleet.api.crd import custom_resource_definition
from embedfleet_operator import permissions
from tools import chart, dashboard, operations, reference

ROOT = Path(__file__).resolve().parent.parent
CRD_FILE = "embeddingservices.embedfleet.dev.yaml"
OPERATIONS = Path("docs/operations.md")
CHART = Path("charts/embedfleet")
ROLES = CHART / "generated/roles.yaml"
_ROLES_NOTE = "# Generated from embedfleet_operator.permissions by `make generate`; edit the table there.\n"
_NOTE = "# Generated from embedfleet.api by `make generate`; edit the types there.\n"


def generated(root: Path = ROOT) -> dict[Path, str]:
    """The text of each generated file, by its path from `root`, the repository's."""
    definition = custom_resource_definition()
    crd = _NOTE + yaml.dump(definition, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    return {
        Path("crds") / CRD_FILE: crd,
        CHART / "generated/crds" / CRD_FILE: crd,
        Path("docs/reference.md"): reference.page(definition),
        ROLES: _ROLES_NOTE + yaml.dump_all(permissions.roles(), Dumper=_Dumper, sort_keys=False, width=120),
        OPERATIONS: operations.page(_text(root / OPERATIONS)),
        CHART / "values.yaml": chart.values(),
        CHART / "values.schema.json": chart.schema(),
        CHART / "README.md": chart.readme(_text(root / CHART / "README.md")),
        CHART / "files/dashboard.json": dashboard.page(),
    }


def stale(root: Path) -> list[Path]:
    """The generated files under `root` that are missing or not what the contract gives."""
    return [path for path, text in generated(root).items() if not _holds(root / path, text)]


def write(root: Path) -> None:
    """Write the generated files that are not up to date."""
    texts = generated(root)
    for path in stale(root):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(texts[path], encoding="utf-8")
        print(f"wrote {path}")


class _Dumper(yaml.SafeDumper):
    """Each mapping and list written out where it stands, never as an anchor and its alias."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _holds(path: Path, text: str) -> bool:
    return _text(path) == text


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is not up to date")
    if not parser.parse_args(arguments).check:
        write(ROOT)
        return 0
    for path in (found := stale(ROOT)):
        print(f"{path} is not what the code gives; run: make generate", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
