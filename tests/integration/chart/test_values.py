"""What may be given to the chart, and what is refused."""

from typing import Any

import pytest

from tests.cluster.errors import CommandFailed
from tests.support.charts import CHART, Helm, one

pytestmark = pytest.mark.requirement("O6")


def test_lint_finds_nothing(helm: Helm) -> None:
    """`helm lint --strict` has neither an error nor a warning."""
    assert "0 chart(s) failed" in helm.run("lint", "--strict", str(CHART))


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("replica", 1, "replica"),
        ("image.tagg", "1", "tagg"),
        ("crds.instal", False, "instal"),
        ("monitoring.alerts", True, "alerts"),
        ("tolerations", [{"kee": "gpu"}], "kee"),
        ("imagePullSecrets", [{"nam": "registry"}], "nam"),
        ("affinity.nodeAfinity", {}, "nodeAfinity"),
        ("test.apiKeySecret.secret", "keys", "secret"),
    ],
)
def test_an_unknown_key_is_refused_by_its_name(helm: Helm, key: str, value: Any, named: str) -> None:
    """A key that no value has, at any depth, is refused before anything is rendered; the message has the key."""
    with pytest.raises(CommandFailed, match=rf"additional properties '{named}' not allowed"):
        helm.template({key: value})


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("replicas", 0, "minimum: got 0, want 1"),
        ("replicas", "two", "got string, want integer"),
        ("logLevel", "loud", "value must be one of 'debug', 'info', 'warning', 'error'"),
        ("watchNamespaces", ["Team_A"], "'Team_A' does not match pattern"),
        ("watchNamespaces", ["a", "a"], "items at 0 and 1 are equal"),
        ("apiServerCIDRs", ["10.0.0.1"], "'10.0.0.1' does not match pattern"),
        ("serverImage.tag", 1.5, "got number, want string"),
        ("serverImage.digest", "latest", "'latest' does not match pattern"),
        ("image.repository", "", "minLength: got 0, want 1"),
        ("networkPolicy.apiServerPorts", [], "minItems: got 0, want 1"),
        ("networkPolicy.apiServerPorts", [70000], "maximum: got 70,000, want 65,535"),
        ("monitoring.dashboard.create", "Yes", "value must be one of 'Auto', 'Always', 'Never'"),
        ("resources.limits.memory", ["1Gi"], "got array, want"),
    ],
)
def test_a_wrong_value_is_refused_by_its_place(helm: Helm, key: str, value: Any, what: str) -> None:
    """The message says which value is wrong, as a path, and what it must be."""
    with pytest.raises(CommandFailed) as refused:
        helm.template({key: value})
    assert "/" + key.replace(".", "/") in str(refused.value)
    assert what in str(refused.value)


def test_a_parent_charts_values_are_let_through(helm: Helm) -> None:
    """`global`, which Helm hands to each chart that is part of another, is no mistake."""
    assert helm.template({"global.registry": "registry.example"})


def test_a_key_secret_without_an_entry_is_refused(helm: Helm) -> None:
    """A Secret for `helm test` with no entry named is said, rather than found out when the pod cannot start."""
    with pytest.raises(CommandFailed, match=r"test\.apiKeySecret\.key must name an entry"):
        helm.template({"test.service": "semantic", "test.apiKeySecret.name": "keys"})


def test_a_null_takes_a_default_out(helm: Helm) -> None:
    """As Helm has it, a null removes a default: there is no limit of the processor then."""
    deployment = one(helm.template({"resources.limits.cpu": None}), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"memory": "512Mi"}
