"""Bills of materials: CycloneDX 1.6."""

import importlib.metadata
import importlib.util
import json
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator  # type: ignore[import-untyped]  # its types are a package of their own
from referencing import Registry
from referencing.jsonschema import DRAFT7

from tools.images import sbom

DPKG = "ii \tlibc6\t2.36-9+deb12u10\tamd64\nii \ttzdata\t2025b-0+deb12u1\tall\nrc \tgone\t1\tamd64\n"


def validator() -> Draft7Validator:
    """Of the published schema, which a package of the Python index carries."""
    found = importlib.util.find_spec("cyclonedx")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent / "schema" / "_res"
    names = ("bom-1.6.SNAPSHOT.schema.json", "spdx.SNAPSHOT.schema.json", "jsf-0.82.SNAPSHOT.schema.json")
    schemas: list[dict[str, Any]] = [json.loads((folder / name).read_text(encoding="utf-8")) for name in names]
    resources = [(schema["$id"], DRAFT7.create_resource(schema)) for schema in schemas]
    return Draft7Validator(schemas[0], registry=Registry().with_resources(resources))


@pytest.mark.requirement("O6")
def test_it_is_valid_and_always_the_same() -> None:
    """The document of all that is installed here and of Debian's packages follows the schema, and twice is the same."""
    parts = [
        sbom.interpreter("3.11.7"),
        *sbom.python_components(importlib.metadata.distributions()),
        *sbom.debian_components(DPKG),
    ]
    made = sbom.document("embedfleet-server", "1.0", parts)
    assert [error.message for error in validator().iter_errors(made)] == []
    assert made == sbom.document("embedfleet-server", "1.0", parts[::-1])
    assert made["serialNumber"] != sbom.document("embedfleet-server", "1.1", parts)["serialNumber"]


@pytest.mark.requirement("O6")
def test_parts_are_named_as_others_look_them_up() -> None:
    """Each part has the package URL of its kind; packages that are not installed are no parts."""
    assert [part["purl"] for part in sbom.debian_components(DPKG)] == [
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64",
        "pkg:deb/debian/tzdata@2025b-0%2Bdeb12u1?arch=all",
    ]
    found = {part["purl"] for part in sbom.python_components(importlib.metadata.distributions())}
    assert f"pkg:pypi/prometheus-client@{importlib.metadata.version('prometheus-client')}" in found


@pytest.mark.requirement("O6")
@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ([("License-Expression", "MIT"), ("License", "x")], [{"expression": "MIT"}]),
        ([("Classifier", "License :: OSI Approved :: BSD License")], [{"license": {"name": "BSD License"}}]),
        ([("License", "Apache 2")], [{"license": {"name": "Apache 2"}}]),
        ([("License", "Permission is hereby granted,\nfree of charge")], []),
        ([], []),
    ],
)
def test_licences(fields: list[tuple[str, str]], told: list[dict[str, Any]]) -> None:
    """An expression counts most; a name is taken from the classifiers or the short form; a whole text is no name."""
    metadata = Message()
    for name, value in fields:
        metadata[name] = value
    assert sbom.licences(metadata) == told
