"""What holds of the objects of every valid spec."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedfleet.api import EmbeddingService
from embedfleet_operator import names, render
from embedfleet_operator.equality import unchanged
from tests.support.specs import manifests, services
from tests.unit.operator.regenerate import SITE

Object = dict[str, Any]
SOME = settings(max_examples=40)  # each renders a whole service a few times
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def one(service: EmbeddingService, kind: str) -> Object:
    (found,) = [made for made in render.objects(service, SITE) if made["kind"] == kind]
    return found


def pod(service: EmbeddingService) -> Object:
    spec: Object = one(service, "Deployment")["spec"]["template"]["spec"]
    return spec


def containers(service: EmbeddingService) -> Iterator[Object]:
    yield from pod(service).get("initContainers", [])
    yield from pod(service)["containers"]


@pytest.mark.requirement("O6")
@SOME
@given(services())
def test_every_pod_is_restricted(service: EmbeddingService) -> None:
    """Each pod meets the Pod Security Standard `restricted`, and cannot write to its root file system."""
    spec = pod(service)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert all("hostPath" not in volume for volume in spec["volumes"])
    for container in containers(service):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        if container["name"] in (names.CONTAINER, names.FETCH):
            assert context["readOnlyRootFilesystem"] is True


@pytest.mark.requirement("O1")
@SOME
@given(services())
def test_every_container_has_limits(service: EmbeddingService) -> None:
    """Each container has limits for processor and memory, and the server alone asks for the GPUs."""
    gpu = service.spec.gpu
    for container in containers(service):
        limits = container["resources"]["limits"]
        assert {"cpu", "memory"} <= set(limits)
        wanted = str(gpu.count) if gpu.count and container["name"] == names.CONTAINER else None
        assert limits.get(gpu.resource_name) == wanted


@pytest.mark.requirement("O6")
@SOME
@given(services())
def test_no_pod_mounts_a_token(service: EmbeddingService) -> None:
    """Neither the pod nor its account mounts a token of the API server."""
    assert pod(service)["automountServiceAccountToken"] is False
    assert one(service, "ServiceAccount")["automountServiceAccountToken"] is False


@pytest.mark.requirement("O1")
@SOME
@given(services())
def test_every_name_fits(service: EmbeddingService) -> None:
    """Children, volumes and label values are DNS labels, or as long as one; no two children share kind and name."""
    made = render.objects(service, SITE)
    keys = [(child["kind"], child["metadata"]["name"]) for child in made]
    assert len(set(keys)) == len(keys)
    volumes = [volume["name"] for volume in pod(service)["volumes"]]
    assert len(set(volumes)) == len(volumes)
    for name in [name for _, name in keys] + volumes:
        assert len(name) <= 63
        assert DNS_LABEL.fullmatch(name)
    assert all(len(value) <= 63 for child in made for value in child["metadata"]["labels"].values())


@SOME
@given(services())
def test_every_mount_has_its_volume(service: EmbeddingService) -> None:
    """Each mount names a volume of the pod, no two mounts of a container share a path, each volume is mounted."""
    volumes = {volume["name"] for volume in pod(service)["volumes"]}
    mounted = set()
    for container in containers(service):
        mounts = container.get("volumeMounts", [])
        assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
        mounted |= {mount["name"] for mount in mounts}
    assert mounted == volumes


@SOME
@given(services())
def test_the_service_and_the_policy_select_the_pods(service: EmbeddingService) -> None:
    """Deployment, Service, budget and policy select by labels that the pods have, whatever podTemplate says."""
    labels = one(service, "Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        one(service, "Deployment")["spec"]["selector"]["matchLabels"],
        one(service, "Service")["spec"]["selector"],
    ]
    selectors.append(one(service, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"])
    if service.spec.network.enabled:
        selectors.append(one(service, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"])
    assert all(selector == names.selector(service.metadata.name) for selector in selectors)
    assert names.selector(service.metadata.name).items() <= labels.items()


@pytest.mark.requirement("S4")
@SOME
@given(services())
def test_the_grace_period_is_what_the_drain_needs(service: EmbeddingService) -> None:
    """Lame duck and request have their time, and 20 s beside."""
    drain = service.spec.drain
    needed = drain.max_lame_duck_seconds + drain.request_seconds + 20
    assert pod(service)["terminationGracePeriodSeconds"] == needed


@pytest.mark.requirement("O2")
@SOME
@given(manifests(), st.integers(1, 9))
def test_rendering_is_a_function(manifest: Object, generation: int) -> None:
    """The same spec gives the same objects; another generation alone changes only the batching settings' number."""
    first = render.objects(EmbeddingService.model_validate(manifest), SITE)
    manifest["metadata"]["generation"] = generation
    second = render.objects(EmbeddingService.model_validate(manifest), SITE)
    assert first == render.objects(
        EmbeddingService.model_validate({**manifest, "metadata": {**manifest["metadata"], "generation": 0}}), SITE
    )
    differing = [a["metadata"]["name"] for a, b in zip(first, second, strict=True) if not unchanged(a, b)]
    assert differing == [names.batching_config(manifest["metadata"]["name"])]
