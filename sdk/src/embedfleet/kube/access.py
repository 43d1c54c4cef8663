"""What a route may not do is asked beforehand (SelfSubjectAccessReview), and told with the rule that is missing."""

from dataclasses import dataclass

from embedfleet.api.service import GROUP, PLURAL
from embedfleet.errors import ClusterError
from embedfleet.kube.api import ApiServer
from embedfleet.kube.record import PORT_NAME

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@dataclass(frozen=True, slots=True)
class Need:
    """One verb on one resource of a namespace."""

    verb: str
    resource: str
    sub: str = ""
    group: str = ""
    name: str = ""

    def __str__(self) -> str:
        whole = f"{self.resource}/{self.sub}" if self.sub else self.resource
        return f"{self.verb} {whole}"


SEE = tuple(Need(verb, PLURAL, group=GROUP) for verb in ("get", "list"))
FORWARD = (Need("list", "pods"), Need("get", "pods", "portforward"), Need("create", "pods", "portforward"))
"""Kubernetes asks `get` of a WebSocket, and from 1.35 on `create` too."""


def proxying(service: str, *, tls: bool) -> tuple[Need, ...]:
    """What the service proxy asks: GET is `get`, POST is `create`, of the name as the address has it."""
    name = proxy_name(service, tls=tls)
    return tuple(Need(verb, "services", "proxy", name=name) for verb in ("get", "create"))


def proxy_name(service: str, *, tls: bool) -> str:
    """The service as an address of the proxy names it: scheme, name, port."""
    return f"https:{service}:{PORT_NAME}" if tls else f"{service}:{PORT_NAME}"


async def lacking(api: ApiServer, namespace: str, needs: tuple[Need, ...]) -> tuple[Need, ...]:
    """Those of `needs` that the API server would refuse. What it will not tell is taken to be allowed."""
    return tuple([need for need in needs if not await _is_allowed(api, namespace, need)])


async def _is_allowed(api: ApiServer, namespace: str, need: Need) -> bool:
    asked = {
        "namespace": namespace,
        "verb": need.verb,
        "group": need.group,
        "resource": need.resource,
        "subresource": need.sub,
        "name": need.name,
    }
    spec = {"resourceAttributes": {key: value for key, value in asked.items() if value}}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}
    try:
        status = (await api.ask("POST", _REVIEWS, body=body)).get("status") or {}
    except ClusterError:
        return True
    return bool(status.get("allowed"))


def role(namespace: str, needs: tuple[Need, ...], user: str = "YOU") -> str:
    """The YAML that grants `needs` in a namespace: a Role and its RoleBinding."""
    return f"""apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: embedfleet-user, namespace: {namespace}}}
rules:
{rules(needs)}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: embedfleet-user, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: embedfleet-user}}
subjects:
- {{apiGroup: rbac.authorization.k8s.io, kind: User, name: "{user}"}}"""


def rules(needs: tuple[Need, ...]) -> str:
    """`needs` as rules of a role, a line for each resource."""
    verbs: dict[tuple[str, str], list[str]] = {}
    for need in needs:
        whole = f"{need.resource}/{need.sub}" if need.sub else need.resource
        verbs.setdefault((need.group, whole), []).append(need.verb)
    return "\n".join(
        f'- {{apiGroups: ["{group}"], resources: ["{resource}"], verbs: [{", ".join(named)}]}}'
        for (group, resource), named in verbs.items()
    )


SEE_ALL = rules(SEE)
