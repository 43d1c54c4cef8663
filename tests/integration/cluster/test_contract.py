"""A real API server takes the contract: the CustomResourceDefinition, its defaults and its refusals."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.cluster import Cluster
from tests.cluster.errors import CommandFailed

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "embeddingservice.yaml"
PIPELINES = ROOT / "examples" / "pipelines.yaml"


def example(**spec: Any) -> str:
    """The example's manifest with these fields of its spec instead."""
    manifest = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    return yaml.safe_dump(manifest | {"spec": manifest["spec"] | spec})


UNIT: dict[str, Any] = {"name": "unit", "normalize": {}, "from": ["one"]}
PIECES: dict[str, Any] = {"name": "pieces", "chunk": {"size": 8, "overlap": 8}, "from": ["input"]}


def graph(
    *, of: str = "unheard", read: str = "input", outputs: Sequence[str] = ("one",), more: Sequence[Any] = ()
) -> dict[str, Any]:
    """A pipeline of a step `one` that embeds, and of `more`."""
    steps = [{"name": "one", "embed": {"model": of}, "from": [read]}, *more]
    return {"name": "index", "steps": steps, "outputs": [*outputs]}


def steps(number: int) -> list[dict[str, Any]]:
    """So many steps, each of which reads `one`."""
    return [UNIT | {"name": f"unit{place}"} for place in range(number)]


@pytest.mark.requirement("O5")
def test_the_definition_is_accepted(contract: Cluster) -> None:
    """The API server finds no fault in the schema: neither in its structure nor in its rules and what they cost."""
    told = yaml.safe_load(contract.kubectl("get", "crd", "embeddingservices.embedfleet.dev", "-o", "yaml"))
    true = {condition["type"] for condition in told["status"]["conditions"] if condition["status"] == "True"}
    assert true == {"Established", "NamesAccepted"}


def test_the_example_is_accepted_and_completed(contract: Cluster, namespace: str) -> None:
    """The example is taken as it is; what it leaves out has the defaults of the contract, in nested groups too."""
    contract.kubectl("apply", "--validate=strict", "-f", str(EXAMPLE), "-n", namespace)
    spec = yaml.safe_load(contract.kubectl("get", "embed", "semantic", "-n", namespace, "-o", "yaml"))["spec"]
    assert spec["replicas"] == 1
    assert spec["batching"]["maxWaitMilliseconds"] == 50
    assert spec["batching"]["health"]["queueCritical"] == 800
    assert spec["models"][0]["loading"] == "Eager"


@pytest.mark.requirement("G1", "O5")
def test_pipelines_are_accepted_and_completed(contract: Cluster, namespace: str) -> None:
    """The example's pipelines are taken, in their order, a step without settings too; what they leave out is filled."""
    contract.kubectl("apply", "--validate=strict", "-f", str(PIPELINES), "-n", namespace)
    spec = yaml.safe_load(contract.kubectl("get", "embed", "library", "-n", namespace, "-o", "yaml"))["spec"]
    index, search, answer = spec["pipelines"]
    assert [step["name"] for step in index["steps"]] == ["chunks", "dense", "sparse", "short", "unit"]
    assert index["steps"][-1] == {"name": "unit", "normalize": {}, "from": ["short"]}
    assert (index["parallelExecutions"], answer["parallelExecutions"]) == (10, 4)
    assert search["steps"][0]["embed"] == {"model": "semantic", "input": "Query", "late": False}


def test_a_group_is_completed_when_part_of_it_is_given(contract: Cluster, namespace: str) -> None:
    """Giving one threshold keeps the defaults of the others, and the rule between them holds."""
    contract.kubectl("apply", "-f", "-", "-n", namespace, stdin=example(batching={"health": {"queueCritical": 700}}))
    spec = yaml.safe_load(contract.kubectl("get", "embed", "semantic", "-n", namespace, "-o", "yaml"))["spec"]
    assert spec["batching"]["health"] == {
        "intervalSeconds": 30,
        "queueWarning": 500,
        "queueCritical": 700,
        "memoryWarningPercent": 80,
        "memoryCriticalPercent": 90,
        "failingPercent": 50,
        "probeAfterSeconds": 5,
    }


@pytest.mark.requirement("O5")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"batching": {"health": {"queueCritical": 400}}}, "queueWarning must not be above queueCritical"),
        ({"batching": {"maxBatchSize": 0}}, "should be greater than or equal to 1"),
        ({"models": []}, "should have at least 1 items"),
        ({"pipelines": [graph()]}, "model of a pipeline's step must be the name of one of the models"),
        ({"pipelines": [graph(of="semantic", read="second")]}, "from must name input or steps that stand before"),
        ({"pipelines": [graph(of="semantic", read="one")]}, "from must name input or steps that stand before"),
        ({"pipelines": [graph(of="semantic", outputs=["second"])]}, "outputs must be names of steps"),
        ({"pipelines": [graph(of="semantic", more=[UNIT])]}, "every step must be in outputs or be read"),
        ({"pipelines": [graph(of="semantic", more=[UNIT | {"truncate": {"dimensions": 3}}])]}, "exactly one of embed"),
        ({"pipelines": [graph(of="semantic", more=[UNIT | {"name": "one"}])]}, "Duplicate value|must be unique"),
        ({"pipelines": [graph(of="semantic", more=[UNIT | {"name": "input"}])]}, "no step may be named input"),
        ({"pipelines": [graph(of="semantic", more=steps(32))]}, "must have at most 32 items"),
        ({"pipelines": [graph(of="semantic", more=[PIECES])]}, "overlap must be less than size"),
        ({"tracing": {"endpoint": "http://c:65536"}}, "the port of endpoint must be from 1 to 65535"),
        ({"tracing": {"endpoint": "http://c:0/otlp"}}, "the port of endpoint must be from 1 to 65535"),
        ({"tracing": {"endpoint": "c:4317"}}, "spec.tracing.endpoint"),
    ],
    ids=[
        "rule",
        "bound",
        "empty",
        "unknown-model",
        "unknown-step",
        "reads-itself",
        "unknown-output",
        "unused",
        "two-operations",
        "same-name",
        "named-input",
        "33-steps",
        "overlap",
        "port",
        "no-port",
        "no-scheme",
    ],
)
def test_a_wrong_manifest_is_refused(contract: Cluster, namespace: str, spec: dict[str, Any], message: str) -> None:
    """What breaks a rule or a bound is refused by the API server, with what must hold."""
    with pytest.raises(CommandFailed, match=message):
        contract.kubectl("apply", "-f", "-", "-n", namespace, stdin=example(**spec))


@pytest.mark.requirement("O5")
@pytest.mark.parametrize("tracing", [{}, {"endpoint": "https://c.example"}, {"endpoint": "http://c.ns:4318/otlp"}])
def test_traces_may_go_anywhere(contract: Cluster, namespace: str, tracing: dict[str, Any]) -> None:
    """With a port, without one, and to whatever the environment names."""
    contract.kubectl("apply", "-f", "-", "-n", namespace, stdin=example(tracing=tracing))


@pytest.mark.requirement("O5")
def test_an_unknown_field_is_refused(contract: Cluster, namespace: str) -> None:
    """A misspelt field is named rather than dropped."""
    with pytest.raises(CommandFailed, match=r'unknown field "spec\.replica"'):
        contract.kubectl("apply", "--validate=strict", "-f", "-", "-n", namespace, stdin=example(replica=2))


def test_the_columns(contract: Cluster, namespace: str) -> None:
    """`kubectl get embed` shows what the status says: whether it is ready, replicas, models and url."""
    contract.kubectl("apply", "-f", str(EXAMPLE), "-n", namespace)
    ready = {"type": "Ready", "status": "True", "reason": "Ready", "message": "", "observedGeneration": 1}
    ready["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    status = {"conditions": [ready], "readyReplicas": 2, "modelsReady": "3/3", "url": "http://semantic"}
    patch = json.dumps({"status": status})
    contract.kubectl("patch", "embed", "semantic", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    header, row = contract.kubectl("get", "embed", "-n", namespace).splitlines()
    assert header.split() == ["NAME", "READY", "REPLICAS", "MODELS", "URL", "AGE"]
    assert row.split()[:5] == ["semantic", "True", "2", "3/3", "http://semantic"]
