"""Where things are mounted in a server pod, and the names of their volumes; settings and pods say the same."""

from embedfleet.api import Source
from embedfleet_operator import names

SETTINGS = "/etc/embedfleet/settings"
API_KEYS = "/etc/embedfleet/api-keys"
TLS = "/etc/embedfleet/tls"
STORE = "/var/lib/embedfleet/store"
RUNTIME = "/run/embedfleet"
COMPILED = "/var/cache/embedfleet"
TEMPORARY = "/tmp"  # noqa: S108  # nosec B108  # an emptyDir of the pod's own
_WEIGHTS = "/var/lib/embedfleet/weights"


def volume_name(source: Source) -> str | None:
    """The volume of a mounted source, the same for all models on it; None for a repository or a plain path."""
    if source.volume is not None:
        return f"claim-{names.digest(source.volume.claim_name)}"
    if source.image is not None:
        return f"image-{names.digest(source.image.reference)}"
    return None


def mount_path(volume: str) -> str:
    """Where a weights volume is mounted."""
    return f"{_WEIGHTS}/{volume}"


def located(source: Source) -> Source:
    """`source` as the server in the pod sees it: a mounted one is a path, others stay what they are."""
    volume = volume_name(source)
    mounted = source.volume or source.image
    if volume is None or mounted is None:
        return source
    return Source(path="/".join(part for part in (mount_path(volume), mounted.path) if part))
