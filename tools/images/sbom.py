"""What an image is made of, as a CycloneDX 1.6 bill of materials in JSON.

    python sbom.py dependencies                          of the interpreter that runs it, and of Debian's packages
    python sbom.py whole DEPENDENCIES CODE NAME VERSION  the same with the distributions under CODE, of image NAME

Both run while an image is built, on the standard library alone. There is no time and no random number in it, so that
the same contents give the same file.
"""

import importlib.metadata
import json
import platform
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Component = dict[str, Any]
_LICENCE_CLASSIFIER = "License :: "
_LONGEST_NAME = 100  # characters; what is longer is the text of a licence, which stands in the package itself
_NAMESPACE = uuid.UUID("3d4ea0e0-7f0c-5d0b-9d3e-2f7a6a2c4b11")  # ours alone: serial numbers are made below it
_DPKG = ("dpkg-query", "-W", "-f", "${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\n")


def python_components(distributions: Iterable[importlib.metadata.Distribution]) -> list[Component]:
    """One component for each distribution, by name."""
    made = {component["bom-ref"]: component for component in map(_python, distributions)}
    return [made[reference] for reference in sorted(made)]


def _python(distribution: importlib.metadata.Distribution) -> Component:
    name, version = distribution.metadata["Name"], distribution.version
    purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}"
    made = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    found = licences(distribution.metadata)
    return {**made, "licenses": found} if found else made


def licences(metadata: Any) -> list[dict[str, Any]]:
    """An SPDX expression where there is one, else the names that the distribution gives."""
    if expression := metadata.get("License-Expression"):
        return [{"expression": expression}]
    classified = [one for one in metadata.get_all("Classifier") or [] if one.startswith(_LICENCE_CLASSIFIER)]
    names = [one.rpartition(" :: ")[2] for one in classified] or [metadata.get("License") or ""]
    short = [name for name in names if name and "\n" not in name and len(name) <= _LONGEST_NAME]
    return [{"license": {"name": name}} for name in short]


def debian_components(told: str) -> list[Component]:
    """One component for each package that `dpkg-query` told of as installed."""
    rows = [line.split("\t") for line in told.splitlines()]
    return [_debian(*row[1:]) for row in rows if row[0].startswith("ii")]


def _debian(name: str, version: str, architecture: str) -> Component:
    written = version.replace("+", "%2B").replace(":", "%3A").replace("~", "~")
    purl = f"pkg:deb/debian/{name.replace('+', '%2B')}@{written}?arch={architecture}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def interpreter(version: str) -> Component:
    """Python itself, which not every base has as a package."""
    purl = f"pkg:generic/python@{version}"
    return {"type": "platform", "bom-ref": purl, "name": "python", "version": version, "purl": purl}


def document(name: str, version: str, components: Sequence[Component]) -> dict[str, Any]:
    """The bill of materials of image `name`."""
    parts = sorted(components, key=lambda component: str(component["bom-ref"]))
    serial = uuid.uuid5(_NAMESPACE, json.dumps([name, version, parts], sort_keys=True))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": name, "name": name, "version": version}},
        "components": parts,
        "dependencies": [{"ref": name, "dependsOn": [part["bom-ref"] for part in parts]}],
    }


def whole(dependencies: dict[str, Any], code: Path, name: str, version: str) -> dict[str, Any]:
    """`dependencies` with the distributions under `code`, as the document of image `name`."""
    ours = python_components(importlib.metadata.distributions(path=[str(code)]))
    return document(name, version, [*dependencies["components"], *ours])


def dependencies() -> dict[str, Any]:
    """Of the machine that this runs on: the distributions of the interpreter's environment, Debian's packages."""
    found = python_components(importlib.metadata.distributions())
    debian = subprocess.run(_DPKG, capture_output=True, text=True, check=True).stdout if shutil.which(_DPKG[0]) else ""
    return document("dependencies", "0", [interpreter(platform.python_version()), *found, *debian_components(debian)])


def text(made: dict[str, Any]) -> str:
    """As it is kept in a file."""
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Print the document that is asked for; 2 when none is."""
    match arguments:
        case ["dependencies"]:
            made = dependencies()
        case ["whole", below, code, name, version]:
            made = whole(json.loads(Path(below).read_text(encoding="utf-8")), Path(code), name, version)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    print(text(made), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
