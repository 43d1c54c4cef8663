"""The strategic merge of a pod template does what Kubernetes defines for its own types."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet_operator.errors import PodTemplateInvalid
from embedfleet_operator.render.merge import merge

Object = dict[str, Any]
BASE: Object = {
    "metadata": {"labels": {"a": "1"}},
    "spec": {
        "containers": [
            {
                "name": "server",
                "image": "server:1",
                "args": ["--a", "--b"],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}],
                "ports": [{"name": "http", "containerPort": 8080}],
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                "resources": {"limits": {"cpu": "4", "memory": "8Gi"}},
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "run", "emptyDir": {}}],
        "tolerations": [{"key": "a"}],
        "topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1}],
    },
}


def merged(spec: Object) -> Object:
    made: Object = merge(BASE, {"spec": spec})["spec"]
    return made


def server(**fields: object) -> Object:
    container: Object = merged({"containers": [{"name": "server", **fields}]})["containers"][0]
    return container


def test_mappings_merge_field_by_field() -> None:
    """What is given stands above what was there, what is not given stays."""
    assert server(resources={"limits": {"cpu": "8"}})["resources"] == {"limits": {"cpu": "8", "memory": "8Gi"}}
    assert merge(BASE, {"metadata": {"labels": {"b": "2"}}})["metadata"] == {"labels": {"a": "1", "b": "2"}}


def test_null_takes_a_field_away() -> None:
    """A null removes what was there, at any depth, and leaves no null behind."""
    assert server(resources={"limits": {"cpu": None}})["resources"] == {"limits": {"memory": "8Gi"}}
    assert "args" not in server(args=None)
    assert merged({"nodeSelector": {"a": None, "b": "1"}})["nodeSelector"] == {"b": "1"}


def test_keyed_lists_merge_by_their_keys_and_keep_their_order() -> None:
    """Entries of one key are merged in place, new ones follow; each list has Kubernetes' own key."""
    assert server(env=[{"name": "C", "value": "3"}, {"name": "A", "value": "2"}])["env"] == [
        {"name": "A", "value": "2"},
        BASE["spec"]["containers"][0]["env"][1],
        {"name": "C", "value": "3"},
    ]
    assert server(volumeMounts=[{"mountPath": "/tmp", "name": "other"}])["volumeMounts"] == [
        {"name": "other", "mountPath": "/tmp"}
    ]
    assert server(ports=[{"containerPort": 8080, "hostPort": 80}])["ports"] == [
        {"name": "http", "containerPort": 8080, "hostPort": 80}
    ]
    assert merged({"topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 2}, {"topologyKey": "host"}]})[
        "topologySpreadConstraints"
    ] == [{"topologyKey": "zone", "maxSkew": 2}, {"topologyKey": "host"}]
    assert [one["name"] for one in merged({"containers": [{"name": "side"}]})["containers"]] == ["server", "side"]


def test_other_lists_are_replaced() -> None:
    """A list without a merge key is one value."""
    assert server(args=["--c"])["args"] == ["--c"]
    assert merged({"tolerations": [{"key": "b"}]})["tolerations"] == [{"key": "b"}]


def test_a_volume_or_variable_has_one_kind() -> None:
    """Another kind of volume, or another source of a variable, takes the place of the old one."""
    claim = {"persistentVolumeClaim": {"claimName": "c"}}
    assert merged({"volumes": [{"name": "tmp", **claim}]})["volumes"][0] == {"name": "tmp", **claim}
    assert server(env=[{"name": "B", "value": "1"}])["env"][1] == {"name": "B", "value": "1"}
    memory = merged({"volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory"}}]})["volumes"][0]
    assert memory == {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}


def test_two_ports_of_one_number_differ_by_protocol() -> None:
    """53 of UDP and 53 of TCP are two entries."""
    both = [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "TCP"}]
    assert server(ports=both)["ports"][1:] == both


def test_directives_delete_and_replace() -> None:
    """`$patch: delete` takes an entry away, `$patch: replace` puts one in its place; neither stays in the result."""
    assert [one["name"] for one in server(env=[{"name": "A", "$patch": "delete"}])["env"]] == ["B"]
    assert server(**{"$patch": "replace", "image": "x"}) == {"name": "server", "image": "x"}
    assert server(env=[{"name": "Z", "$patch": "delete"}])["env"] == BASE["spec"]["containers"][0]["env"]


@pytest.mark.requirement("O5")
@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"containers": {"name": "server"}}, "podTemplate.spec.containers is"),
        ({"containers": [{"image": "x"}]}, "podTemplate.spec.containers[0] has no name"),
        ({"containers": ["server"]}, "podTemplate.spec.containers[0] is 'server'"),
        ({"containers": [{"name": "a"}, {"name": "a"}]}, "'a' stands more than once"),
        ({"containers": [{"name": "server", "resources": "big"}]}, "containers[server].resources is 'big'"),
        ({"containers": [{"name": "server", "$patch": "drop"}]}, "containers[server].$patch is 'drop'"),
        ({"volumes": "tmp"}, "podTemplate.spec.volumes is 'tmp': must be a list"),
    ],
)
def test_a_wrong_shape_is_named_by_its_path(spec: Object, told: str) -> None:
    """What cannot be merged is refused with where it stands and what it must be."""
    with pytest.raises(PodTemplateInvalid) as caught:
        merged(spec)
    assert told in str(caught.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", "args"]), inner, max_size=3),
    max_leaves=8,
)
PATCHES = st.dictionaries(st.sampled_from(["a", "b", "args"]), VALUES, max_size=3)


@given(base=PATCHES, patch=PATCHES)
def test_merging_twice_is_merging_once(base: Object, patch: Object) -> None:
    """The result holds the patch already, has no null that the patch brought, and neither input is changed."""
    before = copy.deepcopy((base, patch))
    try:
        once = merge(base, patch)
        twice = merge(once, patch)
    except PodTemplateInvalid:
        return  # a mapping met a value
    assert twice == once
    assert (base, patch) == before
