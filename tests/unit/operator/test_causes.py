"""Every cause of trouble is recognised from what a cluster shows, and told with what to do about it."""

import json
from typing import Any

import pytest

from embedfleet.api import EmbeddingService
from embedfleet.api.termination import Termination
from embedfleet_operator import references
from embedfleet_operator.errors import CannotRender, PodTemplateInvalid
from embedfleet_operator.observed import Refusal, Secret
from embedfleet_operator.status import Facts
from embedfleet_operator.status.causes import CAUSES
from embedfleet_operator.status.conditions import Statement, statements
from embedfleet_operator.status.diagnosis import diagnose
from tests.support import cluster_objects as objects
from tests.support.cluster_objects import answer, ended, event, facts, pod, replica_set, seen, service, waiting

Plain = dict[str, Any]
AUTH: Plain = {"auth": {"apiKeysSecretRef": {"name": "keys"}}}
TLS: Plain = {"tls": {"secretRef": {"name": "cert"}}}
TOKEN: Plain = {"weights": {"tokenSecretRef": {"name": "hub"}}}


def sick(**pod_: Any) -> Facts:
    """A service whose only pod is as given."""
    return facts(seen(server_pods=[pod(ready=False, **pod_)], answers={}))


def told(code: str, name: str = "server") -> Facts:
    """A container that has left its cause behind."""
    line = Termination.model_validate({"code": code, "message": "the very words", "model": "m"}).to_line()
    if name == "server":
        return sick(statuses=[ended(message=line)])
    return sick(init=[ended(message=line, name=name)], statuses=[waiting("PodInitializing")])


def refused(kind: str, code: int, message: str, **spec: Any) -> Facts:
    return facts(seen(service(**spec), refusals=(Refusal(kind, "semantic", code, message),)))


def mounting(message: str) -> Facts:
    observed = seen(
        server_pods=[pod(ready=False, statuses=[waiting("ContainerCreating")])],
        answers={},
        told=[event("p-1", "FailedMount", "older words", 50), event("p-1", "FailedMount", message)],
    )
    return facts(observed)


RANKED: Plain = {
    "name": "rank",
    "outputs": ["s"],
    "steps": [{"name": "s", "rerank": {"model": "m"}, "from": ["input"]}],
}


CASES = [
    ("NewerVersion", facts(service=None, problems=("spec.autoscaling: is not a known field",)), "spec.autoscaling"),
    ("NameTaken", facts(seen(foreign=("Service semantic",))), "Service semantic"),
    (
        "PodTemplateInvalid",
        facts(obstacle=PodTemplateInvalid("podTemplate.spec.volumes is 'x'"), rendered=None),
        "volumes",
    ),
    (
        "PodTemplateInvalid",
        refused("Deployment", 422, "spec.x: Invalid value", podTemplate={"spec": {"x": 1}}),
        "Invalid",
    ),
    ("PipelineInvalid", facts(obstacle=CannotRender("PipelineInvalid", "step 's': no"), rendered=None), "step 's'"),
    ("PathNotAbsolute", facts(obstacle=CannotRender("PathNotAbsolute", "model m: 'w'"), rendered=None), "model m"),
    ("ImageUnset", facts(obstacle=CannotRender("ImageUnset", "no image"), rendered=None), "no image"),
    ("QuotaExceeded", refused("Service", 403, "exceeded quota: q, requested: services=1"), "exceeded quota"),
    ("QuotaExceeded", facts(seen(sets=[replica_set(failure="pods … exceeded quota: gpus")])), "gpus"),
    ("PodSecurityRefused", facts(seen(sets=[replica_set(failure='violates PodSecurity "restricted"')])), "restricted"),
    ("PodsRefused", facts(seen(sets=[replica_set(failure="admission webhook denied")])), "webhook"),
    ("Forbidden", refused("Ingress", 403, "cannot patch resource ingresses"), "ingresses"),
    ("ApplyRefused", refused("Deployment", 422, "spec.y: Invalid value"), "spec.y"),
    ("SecretMissing", facts(seen(service(**AUTH), secrets=(Secret("keys", exists=False),))), "keys"),
    ("SecretMissing", sick(statuses=[waiting("CreateContainerConfigError", 'secret "hub" not found')]), "hub"),
    ("SecretMissing", mounting('MountVolume.SetUp failed for volume "tls": secret "cert" not found'), "cert"),
    ("SecretKeyEmpty", facts(seen(service(**AUTH), secrets=(Secret("keys", exists=True),))), "any key"),
    (
        "SecretKeyEmpty",
        facts(seen(service(**AUTH), secrets=(Secret("keys", True, frozenset("a"), frozenset("b")),))),
        "for b",
    ),
    ("SecretKeyEmpty", facts(seen(service(**TLS), secrets=(Secret("cert", True, frozenset(["tls.crt"])),))), "tls.key"),
    (
        "SecretKeyEmpty",
        sick(statuses=[waiting("CreateContainerConfigError", "couldn't find key token in Secret ns/hub")]),
        "key token",
    ),
    ("ConfigMissing", mounting('configmap "semantic-batching" not found'), "semantic-batching"),
    ("ClaimMissing", sick(unschedulable='0/1 nodes: persistentvolumeclaim "w" not found'), '"w"'),
    (
        "ClaimPending",
        sick(unschedulable="0/1 nodes: pod has unbound immediate PersistentVolumeClaims. not found"),
        "unbound",
    ),
    ("InsufficientGPU", sick(unschedulable="0/3 nodes are available: 3 Insufficient nvidia.com/gpu."), "0/3 nodes"),
    ("Unschedulable", sick(unschedulable="0/3 nodes are available: 3 Insufficient memory."), "memory"),
    ("InvalidImageName", sick(statuses=[waiting("InvalidImageName", "couldn't parse image")]), "parse"),
    ("ImagePullBackOff", sick(statuses=[waiting("ImagePullBackOff", 'Back-off pulling image "x:1"')]), "x:1"),
    ("ImagePullBackOff", sick(init=[waiting("ErrImagePull", "not found", "fetch")], statuses=[]), "fetch"),
    ("VolumeNotMounted", mounting("Multi-Attach error for volume"), "Multi-Attach"),
    ("ContainerCannotStart", sick(statuses=[waiting("RunContainerError", "exec: no such file")]), "no such file"),
    ("Evicted", sick(phase="Failed", reason="Evicted", message="The node was low on resource: memory."), "low on"),
    ("WeightsMissing", sick(init=[ended(message="404: no such repository", name="fetch")], statuses=[]), "404"),
    ("WeightsMissing", told("WeightsMissing", "fetch"), "model m: the very words"),
    ("DigestMismatch", told("DigestMismatch", "fetch"), "the very words"),
    ("HubUnreachable", told("HubUnreachable", "fetch"), "the very words"),
    ("HubRefused", told("HubRefused", "fetch"), "the very words"),
    ("CacheFull", told("CacheFull", "fetch"), "the very words"),
    ("SettingsInvalid", told("SettingsInvalid"), "the very words"),
    ("DeviceLost", told("DeviceLost"), "the very words"),
    ("ModelLoadFailed", told("ModelLoadFailed"), "the very words"),
    (
        "ModelLoadFailed",
        facts(
            seen(server_pods=[pod(ready=False)], answers={"p-1": answer(state="Failed", model={"cause": "no weights"})})
        ),
        "model m: no weights",
    ),
    ("OOMKilled", sick(statuses=[ended("OOMKilled", code=137)]), "memory"),
    ("CrashLoopBackOff", sick(statuses=[ended(message="Traceback … KeyError: 'x'")]), "KeyError"),
    ("FewerPods", facts(seen(server_pods=[pod(), pod("p-2", ready=False)])), "1 of 2"),
    (
        "PipelineUnfit",
        facts(seen(service(pipelines=[RANKED]))),
        "rerank needs a model of task Rerank, and 'm' is Dense",
    ),
    (
        "OptionalModelFailed",
        facts(seen(answers={"p-1": answer(state="Failed", model={"required": False, "cause": "too large"})})),
        "too large",
    ),
    (
        "FingerprintsDiffer",
        facts(seen(answers={"p-1": answer(), "p-2": answer(model={"fingerprint": "a" * 64})})),
        "aaaaaaaaaaaa and ffffffffffff",
    ),
    (
        "SettingsRejected",
        facts(seen(service(generation=2), answers={"p-1": answer(1, rejected_settings_files=1)})),
        "generation 1",
    ),
    (
        "ServerUnwell",
        facts(seen(answers={"p-1": answer(health=[{"code": "queue", "severity": "CRITICAL", "message": "900 wait"}])})),
        "900 wait",
    ),
    ("ApiMissing", facts(seen(missing_apis=("monitoring.coreos.com/v1/ServiceMonitor",))), "ServiceMonitor"),
]


def condition(given: Facts, kind: str) -> Statement:
    return next(made for made in statements(given, diagnose(given)) if made.type == kind)


@pytest.mark.requirement("O4")
@pytest.mark.parametrize(("reason", "given", "words"), CASES, ids=[f"{case[0]}-{case[2]}" for case in CASES])
def test_a_cause_is_named_with_what_to_do(reason: str, given: Facts, words: str) -> None:
    """Ready (or Degraded, for what is less than asked but served) names the cause, its particulars and the remedy."""
    found = condition(given, "Ready" if CAUSES[reason].blocks else "Degraded")
    assert (found.status, found.reason) == ("False" if CAUSES[reason].blocks else "True", reason)
    assert words in found.message
    remedy = CAUSES[reason].remedy
    assert f"{remedy[0].upper()}{remedy[1:]}." in found.message


@pytest.mark.requirement("O4")
def test_every_cause_has_a_case() -> None:
    """No row of the table is there without being recognised."""
    assert {case[0] for case in CASES} == set(CAUSES)


def test_the_most_important_cause_is_named() -> None:
    """Where a quota and a crash hold at once, Ready names the one that stands first in the table."""
    given = facts(
        seen(
            sets=[replica_set(failure="exceeded quota")], server_pods=[pod(ready=False, statuses=[ended()])], answers={}
        )
    )
    assert [finding.reason for finding in diagnose(given)] == ["QuotaExceeded", "CrashLoopBackOff"]
    assert condition(given, "Ready").reason == "QuotaExceeded"


@pytest.mark.parametrize("code", [409, 429, 500, 503])
def test_what_a_retry_cures_is_no_cause(code: int) -> None:
    """Conflicts, throttling and an API server that is away are not told as trouble; the spec is still being applied."""
    given = refused("Deployment", code, "try again")
    assert diagnose(given) == ()
    assert (condition(given, "Ready").status, condition(given, "Ready").reason) == ("False", "Applying")


def test_pods_that_leave_or_serve_have_no_causes() -> None:
    """A leaving pod's containers end as they should; a ready one's earlier crash is past."""
    crashed = ended(message="past") | {"ready": True, "state": {"running": {}}}
    well = [pod("p-1"), pod("p-2", statuses=[crashed]), pod("p-3", ready=False, leaving=True, statuses=[ended()])]
    assert diagnose(facts(seen(server_pods=well))) == ()


def test_a_first_start_is_no_cause() -> None:
    """Containers that are being made, and a server that is loading, are on their way."""
    for statuses in ([waiting("ContainerCreating")], [waiting("PodInitializing")], None):
        given = sick(statuses=statuses)
        assert diagnose(given) == ()


def test_only_secrets_that_are_named_and_read_are_judged() -> None:
    """A token that no hub model needs is not asked for; of a Secret that was not read nothing is said."""
    service_ = EmbeddingService.model_validate(service(**AUTH, **TLS, **TOKEN))
    assert references.secrets(service_) == {"hub": {"token"}, "keys": set(), "cert": {"tls.crt", "tls.key"}}
    local = EmbeddingService.model_validate(service(models=[{"name": "m", "source": {"path": "/m"}}], **TOKEN))
    assert references.secrets(local) == {}
    assert diagnose(facts(seen(service(**AUTH)))) == ()
    assert diagnose(facts(seen(secrets=(Secret("other", exists=False),)))) == ()


def test_the_termination_line_fits_kubernetes() -> None:
    """The longest message of the worst characters stays within the 4096 bytes that Kubernetes keeps, and reads back."""
    for character in ("\u2028", "\x00", "\U0001f600", "x"):
        line = Termination(code="HubRefused", message=character * 4096, model="m" * 63).to_line()
        assert 2000 < len(line.encode()) <= 4096
        assert json.loads(line)["code"] == "HubRefused"


def test_the_support_module_makes_a_service_that_is_well() -> None:
    """What the other cases differ from has no cause at all."""
    assert diagnose(facts()) == ()
    assert objects.facts().late_pods == ()
