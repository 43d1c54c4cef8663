"""What the operator makes of a manifest: goldens, names, owners, and settings that a server takes."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from embedfleet.api import EmbeddingService
from embedfleet.api.pods import SHUTDOWN_SECONDS
from embedfleet_operator import names, render
from embedfleet_operator.errors import CannotRender
from embedfleet_operator.render import config_maps
from embedfleet_operator.render.settings import in_pod
from embedfleet_server.__main__ import configure
from embedfleet_server.app.settings import load
from embedfleet_server.config import Limits
from tests.unit.operator.regenerate import GOLDENS, NAMES, SITE, manifest, text

Object = dict[str, Any]
GRAPH: Object = {"name": "index", "outputs": ["one"]}
"""A pipeline but for its steps."""


def changed(service: EmbeddingService, **spec: object) -> EmbeddingService:
    given = service.model_dump(by_alias=True, exclude_unset=True)
    return EmbeddingService.model_validate({**given, "spec": given["spec"] | spec})


def named(service: EmbeddingService, **metadata: object) -> EmbeddingService:
    given = service.model_dump(by_alias=True, exclude_unset=True)
    return EmbeddingService.model_validate({**given, "metadata": given["metadata"] | metadata})


def child(service: EmbeddingService, kind: str, ending: str = "", site: render.Site = SITE) -> Object:
    """The one child of a kind whose name has the given ending."""
    made = [one for one in render.objects(service, site) if one["kind"] == kind]
    (found,) = [one for one in made if one["metadata"]["name"].endswith(ending)]
    return found


def pod(service: EmbeddingService) -> Object:
    spec: Object = child(service, "Deployment")["spec"]["template"]["spec"]
    return spec


@pytest.mark.requirement("O1")
@pytest.mark.parametrize("name", NAMES)
def test_rendered_objects_are_the_golden_ones(name: str) -> None:
    """A manifest gives exactly the objects beside it; `python -m tests.unit.operator.regenerate` writes them anew."""
    assert text(name) == (GOLDENS / f"{name}.json").read_text(encoding="utf-8")


@pytest.mark.requirement("S5")
def test_the_startup_probe_waits_for_what_a_server_compiles() -> None:
    """Several times the server's own limit; what it compiles lies on a volume, so that the next start finds it."""
    (server,) = (one for one in pod(manifest("cluster"))["containers"] if one["name"] == names.CONTAINER)
    probe, longest = server["startupProbe"], 2 * configure(["--settings", "s"], {}).compile_seconds
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 4 * longest
    (place,) = (mount["mountPath"] for mount in server["volumeMounts"] if mount["name"] == "compiled")
    kept = {one["name"]: one["value"] for one in server["env"] if one["name"].endswith("_CACHE_DIR")}
    assert kept == {"TORCHINDUCTOR_CACHE_DIR": f"{place}/inductor", "TRITON_CACHE_DIR": f"{place}/triton"}


@pytest.mark.requirement("O2")
def test_settings_of_the_models_are_immutable_and_named_by_content() -> None:
    """A model change gives another ConfigMap and another pod template; the old one cannot change under running pods."""
    service = manifest("cluster")
    after = changed(service, defaultModel="names")
    before_map, after_map = (next(o for o in render.objects(s, SITE) if o.get("immutable")) for s in (service, after))
    assert before_map["metadata"]["name"] != after_map["metadata"]["name"]
    assert after_map["metadata"]["name"] in json.dumps(pod(after))
    assert pod(service) != pod(after)


@pytest.mark.requirement("O2")
def test_a_batching_change_touches_the_batching_settings_alone() -> None:
    """A batching change keeps every name and every object but `NAME-batching`, so that no pod rolls."""
    service = manifest("cluster")
    after = named(changed(service, batching={"maxBatchSize": 8}), generation=8)
    pairs = zip(render.objects(service, SITE), render.objects(after, SITE), strict=True)
    differing = [one["metadata"]["name"] for one, other in pairs if one != other]
    assert differing == ["search-batching"]


@pytest.mark.requirement("O2")
def test_the_pod_template_depends_on_the_spec_and_the_server_image_alone() -> None:
    """Another operator namespace, other APIs, replicas or way of rolling change no pod; another image does."""
    service = manifest("cluster")
    template = child(service, "Deployment")["spec"]["template"]
    site = render.Site(server_image=SITE.server_image, operator_namespace="elsewhere")
    assert child(service, "Deployment", site=site)["spec"]["template"] == template
    assert child(changed(service, replicas=9), "Deployment")["spec"]["template"] == template
    drained = [one for one in render.objects(service, SITE, "DrainFirst") if one["kind"] == "Deployment"]
    assert drained[0]["spec"]["template"] == template
    other = dataclasses.replace(SITE, server_image="server:2")
    assert child(service, "Deployment", site=other)["spec"]["template"] != template


@pytest.mark.requirement("O2")
def test_equal_quantities_are_the_same_rendering() -> None:
    """`1000m` and `1`, `1024Mi` and `1Gi` give byte for byte the same objects, so that nothing is written."""

    def asking(cpu: object, memory: str) -> EmbeddingService:
        server = {"name": "server", "resources": {"limits": {"cpu": cpu, "memory": memory}}}
        return changed(manifest("cpu"), podTemplate={"spec": {"containers": [server]}})

    same = [render.objects(asking(cpu, memory), SITE) for cpu, memory in (("1000m", "1024Mi"), (1, "1Gi"))]
    assert same[0] == same[1]
    assert same[0] != render.objects(asking("2", "1Gi"), SITE)


@pytest.mark.requirement("O1")
def test_every_object_is_owned_labelled_and_stamped() -> None:
    """Kubernetes collects all objects with the service; without a uid there is no owner to name."""
    service = manifest("cluster")
    for made in render.objects(service, SITE):
        metadata = made["metadata"]
        (owner,) = metadata["ownerReferences"]
        assert (owner["name"], owner["uid"], owner["controller"]) == ("search", service.metadata.uid, True)
        assert metadata["labels"] == names.labels("search")
        assert len(metadata["annotations"][names.RENDERED]) == 10
    assert all("ownerReferences" not in made["metadata"] for made in render.objects(manifest("plain"), SITE))


@pytest.mark.requirement("O5")
def test_names_of_the_longest_service_fit_and_differ() -> None:
    """Children of the longest names keep within 63 characters, and two such services share none."""
    made = [{one["metadata"]["name"] for one in render.objects(named(manifest("plain"), name="a" * 62 + last), SITE)}
            for last in "bc"]  # fmt: skip
    assert all(len(name) <= 63 for names_ in made for name in names_)
    assert not made[0] & made[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_server_takes_what_is_rendered(name: str, tmp_path: Path) -> None:
    """The ConfigMaps, mounted as one directory, are the settings that the server reads."""
    for made in render.objects(manifest(name), SITE):
        for file, content in made.get("data", {}).items():
            (tmp_path / file).write_text(content, encoding="utf-8")
    read = load(tmp_path)
    assert (read.models, read.batching) == in_pod(manifest(name))


def test_a_mounted_source_is_a_path_within_the_pod() -> None:
    """Each source of kind volume or image is a path below a read-only mount of the server, one volume per claim."""
    service = manifest("volumes")
    mounts = {one["mountPath"] for one in pod(service)["containers"][0]["volumeMounts"] if one.get("readOnly")}
    sources = [model.source.path for model in in_pod(service)[0].models]
    assert all(any(str(path).startswith(mount) for mount in mounts) for path in sources)
    assert str(sources[0]).endswith("/minilm/v1")
    assert sources[0] == f"{sources[1]}/minilm/v1"
    assert len([one for one in pod(service)["volumes"] if "persistentVolumeClaim" in one]) == 1


@pytest.mark.requirement("S4")
def test_the_grace_period_covers_the_drain() -> None:
    """It is lame duck + request + 2 x shutdown + 10, with the server's own shutdown time; a longer one is taken."""
    assert Limits().shutdown_seconds == SHUTDOWN_SECONDS
    assert pod(manifest("cache-limit"))["terminationGracePeriodSeconds"] == 20 + 120 + 2 * 5 + 10
    assert pod(manifest("pod-template"))["terminationGracePeriodSeconds"] == 120
    hook = pod(manifest("cpu"))["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert hook == ["python", "-m", "embedfleet_server.drain"]


def test_only_hub_models_are_fetched_and_only_then_the_hub_is_reached() -> None:
    """Without hub sources there is no init container, no store, and nothing goes out but DNS; else the hub's port."""
    ports = {name: child(manifest(name), "NetworkPolicy")["spec"]["egress"][1:] for name in ("volumes", "hub", "cpu")}
    assert ports["volumes"] == []
    assert "initContainers" not in pod(manifest("volumes"))
    assert [rule["ports"][0]["port"] for name in ("hub", "cpu") for rule in ports[name]] == [8443, 443]


def test_the_hubs_token_reaches_the_init_container_alone() -> None:
    """The server, which answers the world, never holds the token."""
    spec = pod(manifest("hub"))
    assert "hub-token" in json.dumps(spec["initContainers"])
    assert "hub-token" not in json.dumps(spec["containers"])


def test_optional_types_are_rendered_only_where_they_are_known() -> None:
    """Without the Prometheus operator there is no ServiceMonitor, and that it is missing can be told."""
    service = manifest("ingress")
    bare = dataclasses.replace(SITE, apis=frozenset(["networking.k8s.io/v1/Ingress"]))
    kinds = {one["kind"] for one in render.objects(service, bare)}
    assert "Ingress" in kinds
    assert "ServiceMonitor" not in kinds
    assert render.missing_apis(service, bare) == ["monitoring.coreos.com/v1/ServiceMonitor"]
    assert render.missing_apis(manifest("cpu"), bare) == []


@pytest.mark.requirement("O5")
@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"models": [{"name": "m", "source": {"path": "w"}}]}, "PathNotAbsolute"),
        ({"podTemplate": {"spec": {"containers": [{"image": "x"}]}}}, "PodTemplateInvalid"),
        ({"podTemplate": {"spec": {"containers": "server"}}}, "PodTemplateInvalid"),
        ({"pipelines": [GRAPH | {"steps": [{"name": "one", "normalize": {}, "from": ["input"]}]}]}, "PipelineInvalid"),
    ],
)
def test_a_spec_of_which_no_pod_can_come_is_refused(spec: Object, reason: str) -> None:
    """What the schema cannot see is an error with a reason, before anything is written."""
    with pytest.raises(CannotRender) as caught:
        render.objects(changed(manifest("cpu"), **spec), SITE)
    assert caught.value.reason == reason


@pytest.mark.requirement("G1")
def test_pipelines_are_what_only_a_restart_changes() -> None:
    """They stand in the models' ConfigMap, so that another graph is other pods; without any, nothing changes."""
    service = manifest("cpu")
    name = service.spec.models[0].name
    graph = GRAPH | {"steps": [{"name": "one", "embed": {"model": name}, "from": ["input"]}]}
    plain, made = (config_maps.models(one) for one in (service, changed(service, pipelines=[graph])))
    assert "pipelines" not in json.loads(plain["data"]["models.json"])
    (told,) = json.loads(made["data"]["models.json"])["pipelines"]
    assert (told["name"], told["steps"][0]["from"]) == ("index", ["input"])
    assert plain["metadata"]["name"] != made["metadata"]["name"]


def test_without_any_image_nothing_is_rendered() -> None:
    """Neither the spec nor the installation names an image: that is said, and no pod with an empty one is made."""
    with pytest.raises(CannotRender, match="image"):
        render.objects(manifest("cpu"), render.Site())


def test_a_suspended_service_keeps_everything_but_its_pods() -> None:
    """Suspending changes the number of pods and nothing else."""
    service = manifest("suspended")
    assert child(service, "Deployment")["spec"]["replicas"] == 0
    assert child(changed(service, suspend=False), "Deployment")["spec"]["replicas"] == 5
    assert pod(service) == pod(changed(service, suspend=False))
