"""The manifest's fields for a cluster: what is refused, with the words that say what must hold."""

from typing import Any

import pytest
from pydantic import ValidationError

from embedfleet.api import EmbeddingService, problems, split
from embedfleet.api.crd import structural_schema
from embedfleet.api.pods import Drain
from embedfleet.api.service import EmbeddingServiceSpec

Plain = dict[str, Any]
MODEL: Plain = {"name": "m", "source": {"path": "/w"}}


def complaints(**spec: Any) -> str:
    """What is wrong with a manifest, a line each; empty when nothing is."""
    try:
        EmbeddingService.model_validate({"metadata": {"name": "a"}, "spec": {"models": [MODEL], **spec}})
    except ValidationError as error:
        return "\n".join(map(str, problems(error)))
    return ""


def with_source(**source: Any) -> Plain:
    return {"models": [{"name": "m", "source": source}]}


def grace(seconds: int, **drain: int) -> Plain:
    return {"podTemplate": {"spec": {"terminationGracePeriodSeconds": seconds}}, **({"drain": drain} if drain else {})}


REFUSED = [
    (with_source(), "exactly one of huggingFace, volume, image and path"),
    (with_source(path="/a", volume={"claimName": "c"}), "exactly one of huggingFace, volume, image and path"),
    (with_source(volume={"claimName": "c", "path": "a/../b"}), "path must not contain '..'"),
    (with_source(volume={"claimName": "c", "path": ".."}), "source.volume.path is '..'"),
    (with_source(image={"reference": "r", "path": "/a"}), "source.image.path is '/a'"),
    (with_source(volume={"claimName": "C_"}), "source.volume.claimName is 'C_'"),
    (with_source(volume={}), "source.volume.claimName: is required"),
    ({"drain": {"propagationSeconds": 31}}, "propagationSeconds must not be above maxLameDuckSeconds"),
    (
        {"drain": {"maxLameDuckSeconds": 4, "propagationSeconds": 0}},
        "quietSeconds must not be above maxLameDuckSeconds",
    ),
    (grace(79), "terminationGracePeriodSeconds must be at least drain.maxLameDuckSeconds + drain.requestSeconds + 20"),
    (grace(120, requestSeconds=71), "or a leaving pod would be killed with work in hand"),
    ({"drain": {"requestSeconds": 29}}, "drain.requestSeconds must be at least batching.itemTimeoutSeconds"),
    ({"rollout": {"strategy": "Fast"}}, "must be 'Auto', 'Surge' or 'DrainFirst'"),
    ({"rollout": {"waitForCapacitySeconds": -1}}, "rollout.waitForCapacitySeconds is -1: must be at least 0"),
    ({"weights": {"cache": {"persistentVolumeClaim": "a", "sizeLimit": "1Gi"}}}, "must not both be set"),
    ({"weights": {"cache": {"sizeLimit": "big"}}}, "weights.cache.sizeLimit is 'big'"),
    ({"weights": {"endpoint": "ftp://x"}}, "weights.endpoint is 'ftp://x'"),
    ({"auth": {}}, "auth.apiKeysSecretRef: is required"),
    ({"tls": {"secretRef": {}}}, "tls.secretRef.name: is required"),
    ({"network": {"apiServerCIDRs": ["10.0.0.1"]}}, "apiServerCIDRs must be addresses with a prefix length"),
    ({"network": {"apiServerCIDRs": ["10.0.0.1/33"]}}, "apiServerCIDRs must be addresses with a prefix length"),
    ({"network": {"apiServerCIDRs": ["::/0", "::/0"]}}, "network.apiServerCIDRs: entries must be unique"),
    ({"network": {"allowedNamespaces": ["A"]}}, "network.allowedNamespaces[0] is 'A'"),
    ({"network": {"ingress": {"host": "X_"}}}, "network.ingress.host is 'X_'"),
    ({"imagePullSecrets": [{"name": "a"}, {"name": "a"}]}, "imagePullSecrets: entries must be unique"),
    ({"image": ""}, "spec.image is ''"),
    ({"podTemplate": {"containers": []}}, "podTemplate.containers: is not a known field"),
    ({"podTemplate": {"spec": []}}, "podTemplate.spec is []: must be a mapping"),
    ({"podTemplate": {"metadata": {"labels": {"a": 1}}}}, "podTemplate.metadata.labels.a is 1: must be a string"),
    ({"monitoring": {"serviceMonitor": {"intervalSeconds": 0}}}, "intervalSeconds is 0: must be at least 1"),
    ({"gpu": {"count": 9}}, "batching.maxConcurrentBatches must be at least gpu.count"),
    ({"suspend": "yes"}, "suspend is 'yes': must be true or false"),
    ({"tracing": {"endpoint": "collector:4317"}}, "tracing.endpoint is 'collector:4317'"),
    ({"tracing": {"endpoint": "http://c:65536"}}, "the port of endpoint must be from 1 to 65535"),
    ({"tracing": {"endpoint": "http://c:0"}}, "the port of endpoint must be from 1 to 65535"),
    ({"tracing": {"samplingRatePerMillion": 1_000_001}}, "samplingRatePerMillion is 1000001: must be at most 1000000"),
    ({"tracing": {"sampleRatio": 0.1}}, "did you mean 'samplingRatePerMillion'?"),
]


@pytest.mark.requirement("O5")
@pytest.mark.parametrize(("spec", "words"), REFUSED, ids=[words[:50] for _, words in REFUSED])
def test_refused_with_what_must_hold(spec: Plain, words: str) -> None:
    """A wrong value is named with what it must be."""
    assert words in complaints(**spec)


@pytest.mark.requirement("O5")
@pytest.mark.parametrize(
    "spec",
    [
        with_source(volume={"claimName": "c", "path": "a..b/v1.0"}),
        with_source(image={"reference": "registry.example:5000/w@sha256:" + "0" * 64}),
        grace(80),
        grace(120, requestSeconds=70),
        {"drain": {"maxLameDuckSeconds": 0, "propagationSeconds": 0, "quietSeconds": 0}},
        {"network": {"apiServerCIDRs": ["10.0.0.5/24", "fd00::/8"], "allowedNamespaces": ["*"]}},
        {"weights": {"cache": {"sizeLimit": "20Gi"}, "endpoint": "http://hub.internal:8080/api"}},
        {"tracing": {}},
        {"tracing": {"endpoint": "https://c.example:65535/otlp", "samplingRatePerMillion": 0}},
        {"podTemplate": {"spec": {"nodeSelector": {"a": None}, "anything": [1, {"b": 2.5}]}}},
    ],
)
def test_taken(spec: Plain) -> None:
    """What is right, at the very bounds too, is not complained of."""
    assert complaints(**spec) == ""


def test_a_pod_template_is_kept_as_it_was_written() -> None:
    """Keys that the contract does not know, and nulls, survive as the API server keeps them."""
    given = {"spec": {"nodeSelector": {"a": None}, "hostAliases": [{"ip": "::1"}], "dns_policy": "x"}}
    made = EmbeddingService.model_validate(
        {"metadata": {"name": "a"}, "spec": {"models": [MODEL], "podTemplate": given}}
    )
    assert made.spec.pod_template is not None
    assert made.spec.pod_template.model_dump(by_alias=True, exclude_unset=True) == given


@pytest.mark.requirement("S4")
def test_a_server_outside_a_pod_does_not_serve_on() -> None:
    """On a laptop nobody routes elsewhere: the settings have a lame duck of 0 s, and the time for requests is kept."""
    drain = {"propagationSeconds": 10, "quietSeconds": 9, "maxLameDuckSeconds": 20, "requestSeconds": 45}
    made = EmbeddingService.model_validate({"metadata": {"name": "a"}, "spec": {"models": [MODEL], "drain": drain}})
    assert split(made)[0].drain == Drain(
        propagation_seconds=0, quiet_seconds=0, max_lame_duck_seconds=0, request_seconds=45
    )
    assert made.spec.drain.grace_seconds == 20 + 45 + 20


def test_a_previous_schema_still_reads() -> None:
    """An object stored before these fields came is whole with their defaults."""
    spec = {"models": [MODEL], "gpu": {"count": 0}, "replicas": 2, "drain": {"requestSeconds": 60}}
    made = EmbeddingService.model_validate({"metadata": {"name": "a"}, "spec": spec}).spec
    assert (made.rollout.strategy, made.network.enabled, made.suspend) == ("Auto", True, False)
    assert set(structural_schema(EmbeddingServiceSpec)["required"]) == {"models"}
