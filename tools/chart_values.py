"""The values of the Helm chart: one source for values.yaml, values.schema.json and the table in the chart's README.

A field's docstring is the comment above its value. `Chart` is written for the chart's user: Kubernetes' own words,
camelCase, an empty string or list where nothing is set, since Helm takes a null to mean that the key is not there.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DIGEST = r"^(sha256:[0-9a-f]{64})?$"
_CIDR = r"^[0-9a-fA-F.:]+/[0-9]{1,3}$"
_OBJECT = rf"^({_LABEL}(\.{_LABEL})*)?$"

Namespace = Annotated[str, Field(pattern=rf"^{_LABEL}$", max_length=63)]
ObjectName = Annotated[str, Field(pattern=_OBJECT, max_length=253)]
"""Of an object of Kubernetes; empty: none is named."""
Quantity = str | int
"""An amount as Kubernetes writes it: 100m, 256Mi, 1."""
Create = Literal["Auto", "Always", "Never"]
"""Auto: where the cluster has the types of the Prometheus operator."""
Texts = dict[str, str]


class Values(BaseModel):
    """Base of all groups of values: an unknown key is refused."""

    model_config = ConfigDict(
        extra="forbid", alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True
    )


class Image(Values):
    """An image; its reference is `repository:tag`, or `repository@digest` where a digest is given."""

    repository: Annotated[str, Field(min_length=1)]
    """With the registry's host where that is not the node's default."""
    tag: Annotated[str, Field(max_length=128)] = ""
    """Empty: the chart's appVersion."""
    digest: Annotated[str, Field(pattern=_DIGEST)] = ""
    """`sha256:` and 64 hexadecimal digits; goes before the tag."""


class OperatorImage(Image):
    """Image of the operator."""

    repository: Annotated[str, Field(min_length=1)] = "embedfleet/operator"
    """With the registry's host where that is not the node's default."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When a node pulls it."""


class ServerImage(Image):
    """Image of the server, for every EmbeddingService that names none. A change of it replaces their GPU pods."""

    repository: Annotated[str, Field(min_length=1)] = "embedfleet/server"
    """With the registry's host where that is not the node's default."""
    tag: Annotated[str, Field(max_length=128)] = ""
    """Empty: the chart's appVersion at the first install, which upgrades keep (see followChart)."""
    follow_chart: bool = False
    """With neither tag nor digest set: whether `helm upgrade` goes to the new chart's appVersion. By default it keeps
    the tag that is installed, so that no GPU pod is replaced before you say so. What renders without a cluster
    (`helm template`, Argo CD) cannot know that tag: set one there."""


class PullSecret(Values):
    """A Secret with access to a registry."""

    name: Annotated[str, Field(pattern=_OBJECT, min_length=1, max_length=253)]
    """Its name."""


class Crds(Values):
    """The CustomResourceDefinition."""

    install: bool = True
    """Whether this release brings it, and `helm upgrade` the new one. One release of a cluster does."""
    keep: bool = True
    """Whether it stays at `helm uninstall`. false: it goes, and **every EmbeddingService of the cluster with it**."""


class Rbac(Values):
    """Roles."""

    create: bool = True
    """Whether the operator's roles and their bindings are made. false: you make them (see generated/roles.yaml)."""
    aggregated_roles: bool = True
    """Whether the cluster's own roles view, edit and admin take in EmbeddingServices. One release of a cluster does."""


class ServiceAccount(Values):
    """The operator's account."""

    create: bool = True
    """Whether it is made."""
    name: ObjectName = ""
    """Empty: made by the release's name, or, with `create: false`, `default`."""
    annotations: Texts = Field(default_factory=dict)
    """Its annotations."""


class Resources(Values):
    """What the container asks for and may use. The operator holds no copy of the cluster: it needs little."""

    requests: dict[str, Quantity] = Field(default={"cpu": "100m", "memory": "128Mi"})
    """What the scheduler sets aside."""
    limits: dict[str, Quantity] = Field(default={"cpu": "1", "memory": "512Mi"})
    """What it may use; a namespace with a ResourceQuota asks for both."""


class Toleration(Values):
    """A taint that a pod puts up with."""

    key: str = ""
    """Of the taint; empty: of any."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Exists: whatever its value."""
    value: str = ""
    """Of the taint."""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """Of the taint; empty: any."""
    toleration_seconds: int | None = None
    """For how long, where the effect is NoExecute."""


class Affinity(Values):
    """Affinity of the pods, as Kubernetes has it; the API server checks what is in it."""

    node_affinity: dict[str, Any] = Field(default_factory=dict)
    """On which nodes."""
    pod_affinity: dict[str, Any] = Field(default_factory=dict)
    """Near which pods."""
    pod_anti_affinity: dict[str, Any] = Field(default_factory=dict)
    """Away from which pods. Empty: from the other replicas' zone, where nodes have one."""


class TopologySpread(Values):
    """How the replicas are spread."""

    keys: list[str] = Field(default_factory=lambda: ["kubernetes.io/hostname"])
    """Labels of nodes over whose values they are spread evenly. Kubernetes leaves nodes without one out of account."""
    when_unsatisfiable: Literal["ScheduleAnyway", "DoNotSchedule"] = "ScheduleAnyway"
    """What happens to a replica that cannot be placed evenly."""


class PodDisruptionBudget(Values):
    """Keeps a drain of nodes from taking more than one replica at a time."""

    enabled: bool = True
    """Whether there is one."""


class NetworkPolicy(Values):
    """Who may reach the operator, and whom it may reach."""

    enabled: bool = True
    """Whether there is one: in only for `helm test` and Prometheus (pods of `app.kubernetes.io/name: prometheus`),
    out to the API server, DNS and the servers' observation port."""
    api_server_ports: Annotated[list[Annotated[int, Field(ge=1, le=65535)]], Field(min_length=1)] = Field(
        default_factory=lambda: [443, 6443]
    )
    """Ports of the API server, as its endpoints have them; addresses are those of apiServerCIDRs, if any."""


class ServiceMonitor(Values):
    """ServiceMonitors: for the servers of all EmbeddingServices that this release looks after, and for the operator."""

    create: Create = "Auto"
    """Auto: where the cluster has the type."""
    labels: Texts = Field(default_factory=dict)
    """Labels by which a Prometheus chooses its ServiceMonitors; both have them."""
    interval_seconds: Annotated[int, Field(ge=1, le=3600)] = 30
    """Time from one scrape to the next."""


class PrometheusRule(Values):
    """Alert rules: slow, failing, a long queue, a stuck batch, a model that fails or is not loaded; of the operator:
    nobody leads, a deaf watch, passes that fail, services that stay degraded.
    """

    create: Create = "Auto"
    """Auto: where the cluster has the type."""
    labels: Texts = Field(default_factory=dict)
    """Labels by which a Prometheus chooses its rules."""


class Dashboard(Values):
    """A Grafana dashboard, in a ConfigMap that Grafana's sidecar takes up."""

    create: Create = "Auto"
    """Auto: where the cluster has the types of the Prometheus operator, since these mostly come with a Grafana."""
    labels: Texts = Field(default_factory=lambda: {"grafana_dashboard": "1"})
    """Labels by which the sidecar chooses its ConfigMaps."""
    annotations: Texts = Field(default_factory=dict)
    """Such as the sidecar's folder."""


class Monitoring(Values):
    """What is watched, and by whom: the figures of the servers and of the operator."""

    service_monitor: ServiceMonitor = Field(default_factory=ServiceMonitor)
    """ServiceMonitors: one for all servers, one for the operator."""
    prometheus_rule: PrometheusRule = Field(default_factory=PrometheusRule)
    """Alert rules."""
    dashboard: Dashboard = Field(default_factory=Dashboard)
    """A Grafana dashboard."""


class ApiKeySecret(Values):
    """A Secret with a key of the service, in the service's namespace."""

    name: ObjectName = ""
    """Empty: the service wants no key."""
    key: str = ""
    """The entry of the Secret whose value is sent."""


class Test(Values):
    """What `helm test` does beside asking the operator whether it is well."""

    service: ObjectName = ""
    """An EmbeddingService that is to embed a sentence. Empty: none is asked."""
    namespace: Annotated[str, Field(pattern=rf"^({_LABEL})?$", max_length=63)] = ""
    """Its namespace, in which the pod that asks is made too. Empty: the release's."""
    model: str = ""
    """The model that is asked. Empty: the service's default one."""
    sentence: Annotated[str, Field(min_length=1)] = "The quick brown fox jumps over the lazy dog."
    """What it embeds."""
    api_key_secret: ApiKeySecret = Field(default_factory=ApiKeySecret)
    """A key, where the service wants one."""
    wait_seconds: Annotated[int, Field(ge=1, le=3600)] = 60
    """For how long it tries while the service, or the operator, does not answer yet."""


class Chart(Values):
    """All values."""

    fullname_override: Annotated[str, Field(pattern=rf"^({_LABEL})?$", max_length=40)] = ""
    """Name that the objects' names begin with. Empty: the release's, with `embedfleet` in it."""
    replicas: Annotated[int, Field(ge=1)] = 2
    """Operators: one leads (by a Lease), the others stand by and take over within 15 s when it dies."""
    image: OperatorImage = Field(default_factory=OperatorImage)
    """Image of the operator."""
    server_image: ServerImage = Field(default_factory=ServerImage)
    """Image of the server, for every EmbeddingService that names none. A change of it replaces their GPU pods."""
    image_pull_secrets: list[PullSecret] = Field(default_factory=list)
    """Secrets for the operator's image (`[{name: registry}]`). Services have their own (spec.imagePullSecrets)."""
    watch_namespaces: Annotated[list[Namespace], Field(json_schema_extra={"uniqueItems": True})] = Field(
        default_factory=list
    )
    """Namespaces whose EmbeddingServices are looked after. Empty: all. Otherwise the operator gets roles in these
    alone, and none of the cluster; set apiServerCIDRs too."""
    api_server_cidrs: list[Annotated[str, Field(pattern=_CIDR)]] = Field(default_factory=list, alias="apiServerCIDRs")
    """Addresses of the API server, as its endpoints have them (`kubectl get endpointslices kubernetes`), for network
    policies: its proxy may reach the services. Empty: the operator reads them, which watchNamespaces keeps it from."""
    resync_seconds: Annotated[int, Field(ge=1, le=3600)] = 25
    """Time from one look at every service to the next; what no event tells of is repaired then."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """How much the operator tells."""
    crds: Crds = Field(default_factory=Crds)
    """The CustomResourceDefinition."""
    rbac: Rbac = Field(default_factory=Rbac)
    """Roles."""
    service_account: ServiceAccount = Field(default_factory=ServiceAccount)
    """The operator's account."""
    pod_annotations: Texts = Field(default_factory=dict)
    """Annotations of the operator's pods."""
    pod_labels: Texts = Field(default_factory=dict)
    """Labels of the operator's pods, beside their own."""
    resources: Resources = Field(default_factory=Resources)
    """What the operator's container asks for and may use."""
    node_selector: Texts = Field(default_factory=dict)
    """Labels of nodes on which the operator may run."""
    tolerations: list[Toleration] = Field(default_factory=list)
    """Taints that the operator's pods put up with."""
    affinity: Affinity = Field(default_factory=Affinity)
    """Affinity of the operator's pods, as Kubernetes has it."""
    topology_spread: TopologySpread = Field(default_factory=TopologySpread)
    """How the replicas are spread."""
    priority_class_name: ObjectName = ""
    """Priority class of the operator's pods, such as system-cluster-critical. Empty: the cluster's default."""
    pod_disruption_budget: PodDisruptionBudget = Field(default_factory=PodDisruptionBudget)
    """Keeps a drain of nodes from taking more than one replica at a time."""
    network_policy: NetworkPolicy = Field(default_factory=NetworkPolicy)
    """Who may reach the operator, and whom it may reach."""
    monitoring: Monitoring = Field(default_factory=Monitoring)
    """What is watched, and by whom."""
    test: Test = Field(default_factory=Test)
    """What `helm test` does beside asking the operator whether it is well."""
