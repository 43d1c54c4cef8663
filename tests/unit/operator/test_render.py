"""What the operator makes of a manifest: goldens, names, owners, and settings that a server takes."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedfleet.api import EmbeddingService, split
from embedfleet_operator import names, render
from embedfleet_server.app.settings import load

GOLDENS = Path(__file__).parent / "goldens"
Object = dict[str, Any]


def manifest(golden: str, **metadata: object) -> EmbeddingService:
    given = yaml.safe_load((GOLDENS / f"{golden}.yaml").read_text(encoding="utf-8"))
    given["metadata"] |= metadata
    return EmbeddingService.model_validate(given)


def changed(service: EmbeddingService, **spec: object) -> EmbeddingService:
    given = service.model_dump(by_alias=True, exclude_none=True)
    return EmbeddingService.model_validate({**given, "spec": given["spec"] | spec})


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDENS.glob("*.yaml")))
def test_rendered_objects_are_the_golden_ones(name: str) -> None:
    """A manifest gives exactly the objects beside it; `python -m embedfleet_operator render -f` writes them anew."""
    golden = json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8"))
    assert render.objects(manifest(name)) == golden


def test_settings_of_the_models_are_immutable_and_named_by_content() -> None:
    """A model change gives another ConfigMap, so that pods roll; the old one cannot change under running pods."""
    service = manifest("cluster")
    before, after = (render.objects(s)[0] for s in (service, changed(service, drain={"requestSeconds": 90})))
    assert before["immutable"] is True
    assert before["metadata"]["name"] != after["metadata"]["name"]


def test_a_batching_change_keeps_every_name() -> None:
    """A batching change reaches the same ConfigMap and leaves the models' one alone, so that no pod rolls."""
    service = manifest("cluster")
    after = changed(service, batching={"maxBatchSize": 8})
    before_models, before_batching = render.objects(service)
    after_models, after_batching = render.objects(after)
    assert after_models == before_models
    assert after_batching["metadata"] == before_batching["metadata"]
    assert after_batching["data"] != before_batching["data"]


def test_scaling_changes_no_settings() -> None:
    """More replicas leave both ConfigMaps as they are."""
    service = manifest("cluster")
    assert render.objects(changed(service, replicas=9)) == render.objects(service)


def test_every_object_is_owned_and_labelled() -> None:
    """Kubernetes collects all objects with the service; without a uid there is no owner to name."""
    for made in render.objects(manifest("cluster")):
        (owner,) = made["metadata"]["ownerReferences"]
        assert (owner["name"], owner["uid"], owner["controller"]) == ("search", manifest("cluster").metadata.uid, True)
        assert made["metadata"]["labels"] == names.labels("search")
    assert all("ownerReferences" not in made["metadata"] for made in render.objects(manifest("plain")))


def test_names_fit_kubernetes() -> None:
    """The longest service name there may be gives names within the 253 characters of a ConfigMap's."""
    for made in render.objects(manifest("plain", name="a" * 63)):
        assert len(made["metadata"]["name"]) <= 253
        assert all(len(value) <= 63 for value in made["metadata"]["labels"].values())


@pytest.mark.parametrize("name", ["plain", "cluster"])
def test_a_server_takes_what_is_rendered(name: str, tmp_path: Path) -> None:
    """The ConfigMaps, mounted as one directory, are the settings that the server reads, and those of the contract."""
    for made in render.objects(manifest(name)):
        for file, text in made["data"].items():
            (tmp_path / file).write_text(text, encoding="utf-8")
    read = load(tmp_path)
    assert (read.models, read.batching) == split(manifest(name))
