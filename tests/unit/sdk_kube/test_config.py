"""A kubeconfig as kubectl reads it."""

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedfleet import environment
from embedfleet.environment import Environment, Pod
from embedfleet.errors import NoCluster
from embedfleet.kube import config
from embedfleet.kube.config import Plugin, User

pytestmark = pytest.mark.requirement("K1")


def document(name: str = "lab", user: dict[str, Any] | None = None, **cluster: Any) -> dict[str, Any]:
    """A kubeconfig with one context of that name."""
    return {
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}:6443/", **cluster}}],
        "users": [{"name": name, "user": user or {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }


def written(path: Path, tree: Any) -> Path:
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_context_is_a_server_a_user_and_a_namespace(tmp_path: Path) -> None:
    """Data in the file, and files relative to it; no namespace is `default`."""
    (tmp_path / "ca.pem").write_bytes(b"CA")
    tree = document(user={"token": "t"}, **{"certificate-authority": "ca.pem", "tls-server-name": "api"})
    tree["users"][0]["user"]["client-certificate-data"] = base64.b64encode(b"MINE").decode()
    made = config.load([written(tmp_path / "config", tree)]).context()
    assert (made.name, made.namespace) == ("lab", "default")
    assert (made.server.url, made.server.ca, made.server.tls_server_name) == ("https://lab:6443", b"CA", "api")
    assert (made.user.token, made.user.certificate) == ("t", b"MINE")


def test_of_several_files_the_first_wins(tmp_path: Path) -> None:
    """As kubectl merges KUBECONFIG: the current context is the first file's, and so is an entry that both have."""
    first = written(tmp_path / "a", document("one", {"token": "first"}))
    other = document("two")
    other["users"].append({"name": "one", "user": {"token": "second"}})
    made = config.load([tmp_path / "missing", first, written(tmp_path / "b", other)])
    assert made.context().name == "one"
    assert made.context().user.token == "first"
    assert made.context("two").server.url == "https://two:6443"


def test_a_plugin_is_read_whole(tmp_path: Path) -> None:
    """Command, arguments, environment; a command that is a path is relative to the file."""
    about = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "./login",
        "args": ["get", "token"],
        "env": [{"name": "A", "value": "1"}],
        "interactiveMode": "Never",
        "provideClusterInfo": True,
    }
    made = config.load([written(tmp_path / "config", document(user={"exec": about}))]).context()
    command = (str(tmp_path / "login"), "get", "token")
    version = "client.authentication.k8s.io/v1beta1"
    assert made.user == User(Plugin(command, (("A", "1"),), version, "Never", "", wants_cluster=True))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"current-context": None}, "has no current-context; its contexts: lab"),
        ({"current-context": "prod"}, "has no context 'prod'; its contexts: lab"),
        ({"clusters": []}, "a cluster 'lab', which it does not have"),
        ({"users": []}, "a user 'lab', which it does not have"),
        ({"clusters": [{"name": "lab", "cluster": {"server": "lab:6443"}}]}, "must be like https://host:6443"),
        ({"users": [{"name": "lab", "user": {"exec": {}}}]}, "exec has no command"),
        ({"users": [{"name": "lab", "user": {"client-key": "no.key"}}]}, r"client-key .*no\.key, which cannot be read"),
        ({"users": [{"name": "lab", "user": {"client-key-data": "%"}}]}, "client-key-data that is no base64"),
        ({"users": [{"name": "lab", "user": {"auth-provider": {"name": "oidc"}}}]}, "'oidc', which has no token"),
        ({"contexts": "lab"}, "contexts that are no list"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    """Each mistake is one error with the file, the entry and what it must be."""
    path = written(tmp_path / "config", document() | change)
    with pytest.raises(NoCluster, match=words) as caught:
        config.load([path]).context()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["[1, 2]", "{", "\xff"])
def test_what_is_no_kubeconfig(tmp_path: Path, text: str) -> None:
    """A file that is something else is named."""
    path = tmp_path / "config"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(NoCluster, match=str(path)):
        config.load([path])


def test_none_at_all(tmp_path: Path) -> None:
    """The error says where it was looked for."""
    with pytest.raises(NoCluster, match=r"no kubeconfig \(.*nowhere\)"):
        config.load([tmp_path / "nowhere"])


def test_a_pods_account_serves_where_there_is_no_kubeconfig(tmp_path: Path) -> None:
    """Its token is read from its file at each use; a kubeconfig, or a context by name, goes before it."""
    for name, content in {"token": "t", "ca.crt": "CA", "namespace": "team-a\n"}.items():
        (tmp_path / name).write_text(content)
    around = Environment(None, None, tmp_path, pod=Pod("https://10.0.0.1:443", tmp_path))
    made = config.entered(None, around)
    assert (made.server.url, made.server.ca, made.namespace) == ("https://10.0.0.1:443", b"CA", "team-a")
    assert made.user.token_file == tmp_path / "token"
    with pytest.raises(NoCluster, match="no kubeconfig"):
        config.entered("lab", around)


def test_a_pod_without_an_account(tmp_path: Path) -> None:
    """The error names the field that took it away."""
    with pytest.raises(NoCluster, match="automountServiceAccountToken"):
        config.of_pod(Pod("https://10.0.0.1:443", tmp_path))


def test_the_environment_of_a_pod_and_of_a_laptop() -> None:
    """KUBERNETES_SERVICE_HOST makes a pod; KUBECONFIG is a list of files, without it the one of HOME."""
    told = environment.read({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443", "HOME": "/h"})
    assert told.pod == Pod("https://[fd00::1]:6443", environment.ACCOUNT)
    assert told.kubeconfigs == (Path("/h/.kube/config"),)
    told = environment.read({"KUBECONFIG": "/a:/b", "HOME": "/h", "EMBEDFLEET_CA_FILE": "/ca"})
    assert (told.pod, told.kubeconfigs, told.ca) == (None, (Path("/a"), Path("/b")), Path("/ca"))
