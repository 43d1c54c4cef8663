"""A kubeconfig as kubectl reads it: which API server, trusted how, as whom, in which namespace. Files only."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from embedfleet.environment import Environment, Pod
from embedfleet.errors import NoCluster

Plain = Mapping[str, Any]

DEFAULT_NAMESPACE = "default"
LOGIN_VERSION = "client.authentication.k8s.io/v1"
IF_AVAILABLE = "IfAvailable"


@dataclass(frozen=True, slots=True)
class Server:
    """An API server and how to trust it."""

    url: str
    ca: bytes | None = None
    """PEM; None: the system's."""
    insecure: bool = False
    tls_server_name: str | None = None
    proxy: str | None = None


@dataclass(frozen=True, slots=True)
class Plugin:
    """An exec login plug-in."""

    command: tuple[str, ...]
    environ: tuple[tuple[str, str], ...] = ()
    api_version: str = LOGIN_VERSION
    interactive: str = IF_AVAILABLE
    """Never, IfAvailable or Always."""
    hint: str = ""
    """What the kubeconfig says about getting the program."""
    wants_cluster: bool = False


@dataclass(frozen=True, slots=True)
class User:
    """How to say who we are; the first that is set counts, in the order of the fields."""

    plugin: Plugin | None = None
    token_file: Path | None = None
    token: str | None = None
    password: tuple[str, str] | None = None
    certificate: bytes | None = None
    """PEM, beside any of the others."""
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """A way into a cluster."""

    name: str
    server: Server
    user: User
    namespace: str = DEFAULT_NAMESPACE
    source: str = ""


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """Some kubeconfig files, merged as kubectl does: of what stands in several, the first wins."""

    current: str | None
    contexts: Mapping[str, Plain]
    clusters: Mapping[str, Plain]
    users: Mapping[str, Plain]
    homes: Mapping[tuple[str, str], Path]
    """The file that each entry came from, since its paths are relative to it."""
    source: str

    def context(self, name: str | None = None) -> Context:
        """The context `name`, by default the current one; `NoCluster` names what is wrong with it."""
        wanted = name or self.current
        if wanted is None:
            self._refuse(f"has no current-context; {self._known()}; choose one by context= or --context")
        if wanted not in self.contexts:
            self._refuse(f"has no context {wanted!r}; {self._known()}")
        about = self.contexts[wanted]
        return Context(
            wanted,
            self._server(wanted, str(about.get("cluster") or "")),
            self._user(wanted, str(about.get("user") or "")),
            str(about.get("namespace") or DEFAULT_NAMESPACE),
            self.source,
        )

    def _server(self, context: str, name: str) -> Server:
        if name not in self.clusters:
            self._refuse(f"names in context {context!r} a cluster {name!r}, which it does not have")
        given = self.clusters[name]
        url = str(given.get("server") or "").rstrip("/")
        if not url.startswith(("http://", "https://")):
            self._refuse(f"has a cluster {name!r} with the server {url!r}: it must be like https://host:6443")
        return Server(
            url,
            self._pem(given, "clusters", name, "certificate-authority"),
            bool(given.get("insecure-skip-tls-verify")),
            given.get("tls-server-name") or None,
            given.get("proxy-url") or None,
        )

    def _user(self, context: str, name: str) -> User:
        if not name:
            return User()
        if name not in self.users:
            self._refuse(f"names in context {context!r} a user {name!r}, which it does not have")
        given = self.users[name]
        file = given.get("tokenFile")
        return User(
            self._plugin(given, name),
            self._path(file, "users", name) if file else None,
            given.get("token") or self._old_token(given, name),
            (str(given["username"]), str(given.get("password") or "")) if given.get("username") else None,
            self._pem(given, "users", name, "client-certificate"),
            self._pem(given, "users", name, "client-key"),
        )

    def _old_token(self, given: Plain, name: str) -> str | None:
        """The token of an `auth-provider`, which Kubernetes has given up for plug-ins; kubectl renews it, we do not."""
        old = given.get("auth-provider")
        if old is None:
            return None
        config = old.get("config") or {}
        token = config.get("id-token") or config.get("access-token")
        if not token:
            what = f"logs user {name!r} in by the auth-provider {old.get('name')!r}, which has no token"
            self._refuse(f"{what}: run any kubectl command first, or move to an exec plug-in (kubelogin for oidc)")
        return str(token)

    def _plugin(self, given: Plain, name: str) -> Plugin | None:
        about = given.get("exec")
        if about is None:
            return None
        if not about.get("command"):
            self._refuse(f"has a user {name!r} whose exec has no command")
        return Plugin(
            (self._command(str(about["command"]), name), *(str(part) for part in about.get("args") or ())),
            tuple((str(one["name"]), str(one["value"])) for one in about.get("env") or ()),
            str(about.get("apiVersion") or LOGIN_VERSION),
            str(about.get("interactiveMode") or IF_AVAILABLE),
            str(about.get("installHint") or ""),
            bool(about.get("provideClusterInfo")),
        )

    def _command(self, command: str, name: str) -> str:
        """A path is relative to the file, a plain name is looked for in PATH."""
        return str(self._path(command, "users", name)) if "/" in command else command

    def _pem(self, given: Plain, kind: str, name: str, field: str) -> bytes | None:
        if data := given.get(f"{field}-data"):
            try:
                return base64.b64decode(data, validate=True)
            except (binascii.Error, ValueError, TypeError):
                self._refuse(f"has in {kind} {name!r} a {field}-data that is no base64")
        if not given.get(field):
            return None
        path = self._path(given[field], kind, name)
        try:
            return path.read_bytes()
        except OSError as error:
            self._refuse(f"names in {kind} {name!r} the {field} {path}, which cannot be read: {error.strerror}")

    def _path(self, given: Any, kind: str, name: str) -> Path:
        return self.homes[kind, name].parent / Path(str(given)).expanduser()

    def _known(self) -> str:
        return f"its contexts: {', '.join(sorted(self.contexts))}" if self.contexts else "it has no contexts"

    def _refuse(self, what: str) -> NoReturn:
        raise NoCluster(f"the kubeconfig {self.source} {what}")


def load(files: Sequence[Path]) -> Kubeconfig:
    """The files that exist, merged. Raises `NoCluster` when none does, or one cannot be read."""
    there = [file for file in files if file.exists()]
    if not there:
        looked = ", ".join(map(str, files)) or "neither KUBECONFIG nor HOME is set"
        raise NoCluster(f"no kubeconfig ({looked})")
    return merged([(file.absolute(), _read(file)) for file in there])


def entered(name: str | None, around: Environment) -> Context:
    """The cluster to speak to: the kubeconfig's context `name`, else the cluster that this pod is in, as kubectl does.

    Raises `NoCluster`.
    """
    there = any(file.exists() for file in around.kubeconfigs)
    if name is None and not there and around.pod is not None:
        return of_pod(around.pod)
    return load(around.kubeconfigs).context(name)


def merged(given: Sequence[tuple[Path, Plain]]) -> Kubeconfig:
    """The kubeconfig that these documents make together."""
    found: dict[str, dict[str, Plain]] = {"contexts": {}, "clusters": {}, "users": {}}
    homes: dict[tuple[str, str], Path] = {}
    current: str | None = None
    for path, tree in given:
        current = current or tree.get("current-context") or None
        for kind, known in found.items():
            for name, about in _entries(path, tree, kind):
                if name not in known:
                    known[name], homes[kind, name] = about, path
    source = ", ".join(str(path) for path, _ in given)
    return Kubeconfig(current, found["contexts"], found["clusters"], found["users"], homes, source)


def of_pod(pod: Pod) -> Context:
    """A pod's own account. Raises `NoCluster` when the pod has none mounted."""
    token, ca, namespace = (pod.account / name for name in ("token", "ca.crt", "namespace"))
    if not token.exists():
        raise NoCluster(f"this pod has no service account token ({token}): automountServiceAccountToken is false")
    try:
        trusted = ca.read_bytes() if ca.exists() else None
        home = namespace.read_text().strip() if namespace.exists() else DEFAULT_NAMESPACE
    except OSError as error:
        raise NoCluster(f"the pod's account in {pod.account} cannot be read: {error.strerror}") from error
    return Context("in-cluster", Server(pod.api_url, trusted), User(token_file=token), home, str(pod.account))


_SINGULAR = {"contexts": "context", "clusters": "cluster", "users": "user"}


def _entries(path: Path, tree: Plain, kind: str) -> list[tuple[str, Plain]]:
    try:
        return [(str(one["name"]), one.get(_SINGULAR[kind]) or {}) for one in tree.get(kind) or ()]
    except (TypeError, KeyError, AttributeError) as error:
        raise NoCluster(f"the kubeconfig {path} has {kind} that are no list of named entries") from error


def _read(path: Path) -> Plain:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise NoCluster(f"the kubeconfig {path} cannot be read: {reason}") from error
    if tree is None:
        return {}
    if not isinstance(tree, Mapping):
        raise NoCluster(f"the kubeconfig {path} is no mapping: it must have clusters, users and contexts")
    return tree
