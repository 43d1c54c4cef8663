"""Who is who in a cluster: a key and a certificate for each program, so that the audit log tells them apart."""

import datetime as dt

from tests.cluster import kubeconfig
from tests.cluster.addresses import API_SERVICE, CONTROL_PLANE
from tests.cluster.certificates import Authority, Pair, token_keys, write_private
from tests.cluster.plan import Plan

_ALL = "system:masters"

_USERS = {
    "kube-controller-manager": ("system:kube-controller-manager", _ALL),  # all controllers with this one account
    "kube-scheduler": ("system:kube-scheduler",),
    "kube-proxy": ("system:kube-proxy",),
    "coredns": ("system:coredns", _ALL),
    "kwok": ("system:kwok", _ALL),
}
"""The programs that ask the API server: user name, then groups."""


def write_keys(plan: Plan, outside: str, inside: str, now: dt.datetime) -> None:
    """Every key, certificate and kubeconfig of a cluster.

    Args:
        plan: the cluster.
        outside: the API server's URL for the host.
        inside: the same for the cluster's own programs.
        now: what the certificates are valid from.
    """
    authority = Authority.create(now)
    authority.pair.write(plan.keys, "ca")
    _write_servers(plan, authority, now)
    admin = authority.issue("admin", [_ALL], now=now)
    admin.write(plan.keys, "admin")
    kubeconfig.write(plan.admin, kubeconfig.for_certificate(outside, authority.pair.certificate, admin))
    for name, (user, *groups) in (_USERS | _nodes(plan)).items():
        pair = authority.issue(user, groups, now=now)
        kubeconfig.write(plan.kubeconfig(name), _config(inside, authority, pair))


def _nodes(plan: Plan) -> dict[str, tuple[str, ...]]:
    return {f"node{index}": (f"system:node:node{index}", "system:nodes") for index in range(1, plan.nodes + 1)}


def _write_servers(plan: Plan, authority: Authority, now: dt.datetime) -> None:
    addresses = ("127.0.0.1", CONTROL_PLANE, API_SERVICE)
    authority.issue("kube-apiserver", addresses=addresses, now=now).write(plan.keys, "api-server")
    authority.issue("kube-apiserver-kubelet-client", [_ALL], now=now).write(plan.keys, "kubelet-client")
    private, public = token_keys()
    write_private(plan.keys / "tokens.key", private)
    (plan.keys / "tokens.pub").write_bytes(public)


def _config(server: str, authority: Authority, pair: Pair) -> dict[str, object]:
    return kubeconfig.for_certificate(server, authority.pair.certificate, pair)
