"""The example manifests are valid by the schema an API server holds and by the types Python holds."""

from pathlib import Path

import pytest
import yaml
from openapi_schema_validator import OAS30Validator

from embedfleet.api import EmbeddingService
from embedfleet.api.crd import custom_resource_definition

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
MANIFESTS = sorted(EXAMPLES.glob("*.yaml"))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_example_is_valid_for_both(path: Path) -> None:
    """An example manifest passes the CRD's schema, as written and as Python would write it."""
    schema = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    service = EmbeddingService.model_validate(written)
    for manifest in (written, service.model_dump(by_alias=True, exclude_none=True)):
        assert [error.message for error in OAS30Validator(schema).iter_errors(manifest)] == []


def test_there_are_examples() -> None:
    """The example of the demo is among those looked at."""
    assert "embeddingservice.yaml" in {path.name for path in MANIFESTS}
