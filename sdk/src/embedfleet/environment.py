"""The environment, read here and nowhere else."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embedfleet.api.local import runtime_directory

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes puts a pod's own token, CA and namespace; a pod may be without."""


@dataclass(frozen=True, slots=True)
class Pod:
    """What a process in a pod is told: the API server's address, and the folder of its account."""

    api_url: str
    account: Path


@dataclass(frozen=True, slots=True)
class Environment:
    """What the surroundings say: an address and a key to use, where local servers put their records, what cluster."""

    url: str | None
    api_key: str | None
    records: Path
    namespace: str | None = None
    ca: Path | None = None
    kubeconfigs: tuple[Path, ...] = ()
    """Files to read, the first to have something wins; not all need exist."""
    pod: Pod | None = None
    """None: this process runs in no pod."""


def read(environ: Mapping[str, str] | None = None) -> Environment:
    """The environment of this process: EMBEDFLEET_*, XDG_RUNTIME_DIR, KUBECONFIG, HOME, KUBERNETES_SERVICE_*."""
    given = os.environ if environ is None else environ
    ca = given.get("EMBEDFLEET_CA_FILE")
    return Environment(
        given.get("EMBEDFLEET_URL") or None,
        given.get("EMBEDFLEET_API_KEY") or None,
        runtime_directory(given),
        given.get("EMBEDFLEET_NAMESPACE") or None,
        Path(ca) if ca else None,
        _kubeconfigs(given),
        _pod(given),
    )


def cache_file(environ: Mapping[str, str] | None = None) -> Path:
    """Where vectors are kept with `cache=True`: under XDG_CACHE_HOME, else under ~/.cache."""
    given = os.environ if environ is None else environ
    home = given.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "embedfleet" / "vectors.sqlite"


def _kubeconfigs(given: Mapping[str, str]) -> tuple[Path, ...]:
    if listed := given.get("KUBECONFIG"):
        return tuple(Path(part).expanduser() for part in listed.split(os.pathsep) if part)
    return (Path(given["HOME"]) / ".kube" / "config",) if given.get("HOME") else ()


def _pod(given: Mapping[str, str]) -> Pod | None:
    host = given.get("KUBERNETES_SERVICE_HOST")
    if not host:
        return None
    shown = f"[{host}]" if ":" in host else host
    return Pod(f"https://{shown}:{given.get('KUBERNETES_SERVICE_PORT') or '443'}", ACCOUNT)
