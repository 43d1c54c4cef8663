"""What the chart renders, for many values, is what a real API server takes, in a restricted namespace too."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedfleet_operator import names, permissions
from embedfleet_operator.__main__ import _configuration, _parser
from embedfleet_operator.configuration import Configuration
from tests.cluster.cluster import Cluster
from tests.support.charts import CHART, CRD, ROOT, Helm, Plain, one

pytestmark = pytest.mark.requirement("O6")
DIGEST = "sha256:" + "0" * 64
TERM = {"matchExpressions": [{"key": "cpu", "operator": "In", "values": ["fast"]}]}
ALWAYS = {f"monitoring.{one}.create": "Always" for one in ("serviceMonitor", "prometheusRule", "dashboard")}
MATRIX: dict[str, Plain] = {
    "default": {},
    "namespaced": {"watchNamespaces": ["default", "kube-public"], "apiServerCIDRs": ["10.0.0.1/32", "fd00::1/128"]},
    "no CRD, no cluster roles": {"crds.install": False, "rbac.aggregatedRoles": False, "watchNamespaces": ["default"]},
    "CRD goes": {"crds.keep": False},
    "one replica": {"replicas": 1, "podDisruptionBudget.enabled": False, "topologySpread.keys": []},
    "monitoring": {
        **ALWAYS,
        "monitoring.serviceMonitor.labels": {"release": "prometheus"},
        "monitoring.prometheusRule.labels": {"release": "prometheus"},
        "monitoring.dashboard.annotations": {"folder": "models"},
    },
    "monitoring of namespaces": {**ALWAYS, "watchNamespaces": ["default"]},
    "images": {
        "image": {"repository": "registry.example:5000/a/operator", "digest": DIGEST, "pullPolicy": "Always"},
        "serverImage": {"repository": "registry.example:5000/a/server", "digest": DIGEST},
        "imagePullSecrets": [{"name": "registry"}, {"name": "other.registry"}],
    },
    "placed": {
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [
            {"key": "a", "operator": "Exists"},
            {"effect": "NoExecute", "tolerationSeconds": 5, "key": "b"},
        ],
        "affinity.nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [TERM]}},
        "topologySpread": {"keys": ["rack"], "whenUnsatisfiable": "DoNotSchedule"},
        "priorityClassName": "system-cluster-critical",
    },
    "others' roles and account": {"rbac.create": False, "serviceAccount": {"create": False, "name": "mine"}},
    "named": {
        "fullnameOverride": "vectors",
        "serviceAccount.annotations": {"a.example/role": "x"},
        "podAnnotations": {"a.example/b": "true"},
        "podLabels": {"team": "search", "app.kubernetes.io/name": "not-mine"},
        "networkPolicy.enabled": False,
        "resyncSeconds": 60,
        "logLevel": "debug",
    },
    "test of a service": {
        "test.service": "semantic",
        "test.model": "code",
        "test.sentence": 'a "quoted"\n{{ sentence }}',
        "test.apiKeySecret": {"name": "keys", "key": "team"},
    },
}


@pytest.fixture(scope="session")
def monitored(ground: Cluster, prometheus_types: list[Path]) -> Cluster:
    """`ground` with the types of the Prometheus operator."""
    for file in prometheus_types:
        ground.kubectl("apply", "--server-side", "-f", str(file))
    ground.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=60s")
    return ground


@pytest.mark.parametrize("case", MATRIX)
def test_the_api_server_takes_it(releases: Helm, monitored: Cluster, case: str) -> None:
    """Each object, with strict field validation; of each Deployment and hook the pod too, in a restricted namespace."""
    objects = releases.template(MATRIX[case])
    pods = [as_pod(each) for each in objects if each["kind"] in ("Deployment", "Pod")]
    for each in [*objects, *pods]:
        each["metadata"].setdefault("namespace", releases.namespace)
    apply = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-o", "name", "-f", "-")
    told = monitored.kubectl(*apply, stdin=yaml.safe_dump_all([*objects, *pods]))
    assert len(told.split()) == len(objects) + len(pods)
    assert len(pods) == (3 if case == "test of a service" else 2)


def as_pod(owner: Plain) -> Plain:
    """The pod that a Deployment would make, as its default account, since its own is not there in a dry run."""
    template = owner["spec"]["template"] if owner["kind"] == "Deployment" else owner
    metadata = {"name": f"{owner['metadata']['name']}-pod", "labels": template["metadata"]["labels"]}
    spec = {key: value for key, value in template["spec"].items() if key != "serviceAccountName"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def arguments(objects: list[Plain]) -> list[str]:
    """The operator's command line."""
    (container,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "embedfleet_operator"]
    found: list[str] = container["args"]
    return found


def told(objects: list[Plain]) -> Configuration:
    """What an operator with this command line is told."""
    return _configuration(_parser().parse_args(["run", *arguments(objects)]))


def test_the_operator_reads_its_arguments(helm: Helm) -> None:
    """Each value that is for the operator arrives there, by its own command line."""
    given: dict[str, Any] = {
        "watchNamespaces": ["a", "b"],
        "apiServerCIDRs": ["10.0.0.1/32"],
        "resyncSeconds": 60,
        "serverImage": {"repository": "r.example/s", "tag": "7"},
    }
    configuration = told(helm.template(given))
    assert configuration.namespaces == ("a", "b")
    assert configuration.api_server_cidrs == ("10.0.0.1/32",)
    assert configuration.resync_seconds == 60
    assert configuration.server_image == "r.example/s:7"
    assert configuration.operator_namespace == configuration.lease_namespace == "default"
    assert configuration.lease_name == "embedfleet-operator"


def test_defaults_are_the_operators_own(helm: Helm) -> None:
    """With no value given the operator is told what it would do anyway, and the images are of the chart's version."""
    objects = helm.template()
    configuration, version = told(objects), yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    own = Configuration(identity="")
    assert configuration.namespaces == ()
    for field in ("resync_seconds", "lease_name", "observe_port", "observe_host"):
        assert getattr(configuration, field) == getattr(own, field)
    (container,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"embedfleet/operator:{version}"
    assert configuration.server_image == f"embedfleet/server:{version}"


def test_two_replicas_that_a_drain_leaves_one_of(helm: Helm) -> None:
    """Two pods, spread over zones and nodes; a drain takes one at a time, and is not held up by a lone one."""
    objects = helm.template()
    deployment, budget = one(objects, "Deployment"), one(objects, "PodDisruptionBudget")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["replicas"] == 2
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    pod = deployment["spec"]["template"]["spec"]
    assert [each["topologyKey"] for each in pod["topologySpreadConstraints"]] == ["kubernetes.io/hostname"]
    (apart,) = pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert apart["podAffinityTerm"]["topologyKey"] == "topology.kubernetes.io/zone"
    assert apart["podAffinityTerm"]["labelSelector"]["matchLabels"].items() <= labels.items()


def test_probes_ask_the_port_that_the_operator_opens(helm: Helm) -> None:
    """Liveness asks /live, readiness and startup /ready, by the port that --observe-port names."""
    objects = helm.template()
    (container,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    asked = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {each["port"] for each in asked.values()} == {port["name"]}
    assert port["containerPort"] == told(objects).observe_port
    assert {kind: each["path"] for kind, each in asked.items()} == {
        "startup": "/ready",
        "liveness": "/live",
        "readiness": "/ready",
    }


NAMELESS = """
import pwd
def getpwuid(user): raise KeyError(user)
pwd.getpwuid = getpwuid
from kopf._core.engines import peering
print(peering.detect_own_id(manual=False))
"""


def test_the_operators_user_has_a_name(helm: Helm) -> None:
    """kopf asks for it and fails without one: in the pod's environment there is one, whatever users the image knows."""
    (container,) = one(helm.template(), "Deployment")["spec"]["template"]["spec"]["containers"]
    environ = {each["name"]: each["value"] for each in container["env"]}
    told = subprocess.run([sys.executable, "-c", NAMELESS], env=environ, capture_output=True, text=True, check=False)
    assert told.stdout.startswith("embedfleet-operator@"), told.stderr


def test_servers_let_the_operator_in(helm: Helm) -> None:
    """Network policies of services let in pods of the name that no value of the chart changes."""
    for values in ({}, MATRIX["named"]):
        labels = one(helm.template(values), "Deployment")["spec"]["template"]["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == names.MANAGER


def test_the_operators_own_policy(helm: Helm) -> None:
    """In come the pods of `helm test` and Prometheus; out go questions to the API server, DNS and observation ports."""
    objects = helm.template(MATRIX["namespaced"])
    policy, tester = one(objects, "NetworkPolicy")["spec"], one(objects, "Pod")
    (way_in,) = policy["ingress"]
    who, prometheus = way_in["from"]
    assert who["podSelector"]["matchLabels"].items() <= tester["metadata"]["labels"].items()
    assert prometheus["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "prometheus"}
    api_server, dns, servers = policy["egress"]
    assert [each["ipBlock"]["cidr"] for each in api_server["to"]] == ["10.0.0.1/32", "fd00::1/128"]
    assert [each["port"] for each in api_server["ports"]] == [443, 6443]
    assert {each["port"] for each in dns["ports"]} == {53}
    assert [each["port"] for each in servers["ports"]] == [names.OBSERVE_PORT]
    (expression,) = servers["to"][0]["podSelector"]["matchExpressions"]
    assert expression == {"key": names.SERVICE_LABEL, "operator": "Exists"}


def rules(objects: list[Plain], kind: str, name: str, namespace: str | None = None) -> Any:
    """Those of one role."""
    (found,) = [
        each["rules"]
        for each in objects
        if (each["kind"], each["metadata"]["name"]) == (kind, name) and each["metadata"].get("namespace") == namespace
    ]
    return found


def test_roles_are_the_generated_ones(helm: Helm) -> None:
    """For the whole cluster and for the Lease: what the operator's table of permissions gives, bound to its account."""
    objects = helm.template()
    generated = {each["metadata"]["name"]: each for each in permissions.roles()}
    assert rules(objects, "ClusterRole", "embedfleet-operator") == generated["embedfleet-operator"]["rules"]
    lease = rules(objects, "Role", "embedfleet-operator-lease", "default")
    assert lease == generated["embedfleet-operator-lease"]["rules"]
    for kind in ("ClusterRoleBinding", "RoleBinding"):
        bound = one(objects, kind)
        assert bound["subjects"] == [{"kind": "ServiceAccount", "name": "embedfleet-operator", "namespace": "default"}]
        assert bound["roleRef"]["name"] == bound["metadata"]["name"]


def test_a_namespaced_install_has_no_role_of_the_cluster(helm: Helm) -> None:
    """With watchNamespaces a role in each of them, the generated one; without CRD and aggregated roles every object is
    in a namespace.
    """
    objects = helm.template({**MATRIX["namespaced"], "crds.install": False, "rbac.aggregatedRoles": False})
    generated = {each["metadata"]["name"]: each for each in permissions.roles()}
    for namespace in ("default", "kube-public"):
        made = rules(objects, "Role", "embedfleet-operator", namespace)
        assert made == generated["embedfleet-operator-namespaced"]["rules"]
    bound = [each for each in objects if each["kind"] == "RoleBinding"]
    assert {each["metadata"]["namespace"] for each in bound} == {"default", "kube-public"}
    assert {each["subjects"][0]["namespace"] for each in bound} == {"default"}
    assert not [each for each in objects if "namespace" not in each["metadata"]]


def test_people_get_their_roles_by_aggregation(helm: Helm) -> None:
    """Those for viewing and editing are the generated ones, with the labels by which the cluster takes them in."""
    objects = helm.template()
    generated = {each["metadata"]["name"]: each for each in permissions.roles()}
    for name in ("embedfleet-view", "embedfleet-edit"):
        made = one(objects, "ClusterRole", name)
        assert made["rules"] == generated[name]["rules"]
        assert generated[name]["metadata"]["labels"].items() <= made["metadata"]["labels"].items()


def test_the_crd_is_the_generated_one(helm: Helm) -> None:
    """Its spec is that of `crds/`, number by number; whether it stays at `helm uninstall` is a value."""
    generated = yaml.safe_load((ROOT / "crds" / f"{CRD}.yaml").read_text(encoding="utf-8"))
    kept = one(helm.template(), "CustomResourceDefinition")
    assert json.dumps(kept["spec"], sort_keys=True) == json.dumps(generated["spec"], sort_keys=True)
    assert kept["metadata"]["name"] == generated["metadata"]["name"]
    assert kept["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    goes = one(helm.template({"crds.keep": False}), "CustomResourceDefinition")
    assert "annotations" not in goes["metadata"]


def test_monitoring_comes_where_its_types_are(helm: Helm) -> None:
    """Auto follows the API server, Always and Never do not; the rules and the dashboard are the chart's files."""
    kinds = ("ServiceMonitor", "PrometheusRule")
    known = [option for kind in kinds for option in ("--api-versions", f"monitoring.coreos.com/v1/{kind}")]
    never = dict.fromkeys(ALWAYS, "Never")
    there = helm.template(None, *known)
    assert monitoring(there) == monitoring(helm.template(ALWAYS)) == {"ServiceMonitor", "PrometheusRule", "ConfigMap"}
    assert monitoring(helm.template()) == monitoring(helm.template(never, *known)) == set()
    files = CHART / "files"
    assert one(there, "PrometheusRule")["spec"] == yaml.safe_load((files / "alerts.yaml").read_text(encoding="utf-8"))
    board = one(there, "ConfigMap")["data"]["embedfleet.json"]
    assert json.loads(board) == json.loads((files / "dashboard.json").read_text(encoding="utf-8"))
    (endpoint,) = one(there, "ServiceMonitor", "embedfleet-servers")["spec"]["endpoints"]
    assert endpoint["port"] == names.OBSERVE


def test_the_operators_figures_are_scraped(helm: Helm) -> None:
    """Its monitor finds its Service and that alone, at the port of the operator's own, in its own namespace; the policy
    lets in who scrapes the services too; labels and interval are the values'.
    """
    given = {"monitoring.serviceMonitor": {"create": "Always", "labels": {"release": "p"}, "intervalSeconds": 7}}
    objects = helm.template({**MATRIX["named"], **given, "networkPolicy.enabled": True})
    monitor, service = one(objects, "ServiceMonitor", "vectors-operator"), one(objects, "Service")
    (endpoint,), (port,) = monitor["spec"]["endpoints"], service["spec"]["ports"]
    assert monitor["metadata"]["labels"]["release"] == "p"
    assert monitor["metadata"]["namespace"] == service["metadata"]["namespace"]
    assert "namespaceSelector" not in monitor["spec"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert endpoint == {"port": port["name"], "path": "/metrics", "interval": "7s"}
    assert port["port"] == told(objects).observe_port
    (way_in,) = one(objects, "NetworkPolicy")["spec"]["ingress"]
    assert {
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
    } in way_in["from"]
    assert way_in["ports"] == [{"protocol": "TCP", "port": port["targetPort"]}]


def monitoring(objects: list[Plain]) -> set[str]:
    """The kinds that are there for monitoring's sake."""
    return {each["kind"] for each in objects} & {"ServiceMonitor", "PrometheusRule", "ConfigMap"}


def test_notes_say_what_comes_next(releases: Helm) -> None:
    """After the install: how to see the operator, a first service that the contract takes, and what is missing."""
    notes = releases.install({"watchNamespaces": ["default"], "crds.keep": False})
    (manifest,) = re.findall(r"<<'END'\n(.*)\n  END", notes, flags=re.DOTALL)
    service = yaml.safe_load(manifest)
    assert service["metadata"] == {"name": "semantic", "namespace": "default"}
    assert service["spec"]["gpu"] == {"count": 0}
    assert "apiServerCIDRs is empty" in notes
    assert "delete every EmbeddingService" in notes
