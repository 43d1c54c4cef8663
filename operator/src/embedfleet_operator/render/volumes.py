"""The volumes of a server pod, and which of its two containers mounts them where."""

from dataclasses import dataclass

from embedfleet.api import EmbeddingService
from embedfleet_operator import names
from embedfleet_operator.render import config_maps, paths
from embedfleet_operator.render.metadata import Object

_READ_BY_GROUP = 0o440  # the pod's fsGroup may read a secret, others may not


@dataclass(frozen=True, slots=True)
class Mounted:
    """A volume, and where it is mounted."""

    volume: Object
    path: str
    read_only: bool = False
    fetched: bool = False
    """Whether the init container mounts it too."""

    def mount(self, *, read_only: bool) -> Object:
        """The container's side of it."""
        made: Object = {"name": self.volume["name"], "mountPath": self.path}
        return made | {"readOnly": True} if read_only else made


def volumes(service: EmbeddingService) -> list[Object]:
    """The pod's side of every volume."""
    return [mounted.volume for mounted in _all(service)]


def server_mounts(service: EmbeddingService) -> list[Object]:
    """Where the server sees them."""
    return [mounted.mount(read_only=mounted.read_only) for mounted in _all(service)]


def fetch_mounts(service: EmbeddingService) -> list[Object]:
    """Where the init container sees those it needs; it alone writes to the store."""
    mounts = [(mounted, mounted.path == paths.SETTINGS) for mounted in _all(service) if mounted.fetched]
    return [mounted.mount(read_only=read_only) for mounted, read_only in mounts]


def fetches(service: EmbeddingService) -> bool:
    """Whether any weights come from a hub."""
    return any(model.source.hugging_face is not None for model in service.spec.models)


def _all(service: EmbeddingService) -> list[Mounted]:
    return [
        Mounted(_settings(service), paths.SETTINGS, read_only=True, fetched=True),
        Mounted({"name": "tmp", "emptyDir": {}}, paths.TEMPORARY, fetched=True),
        Mounted({"name": "runtime", "emptyDir": {}}, paths.RUNTIME),
        Mounted({"name": "compiled", "emptyDir": {}}, paths.COMPILED),
        *_store(service),
        *_secrets(service),
        *_weights(service),
    ]


def _settings(service: EmbeddingService) -> Object:
    """Both ConfigMaps as one directory, as the server reads it; a mounted directory follows changes."""
    files = (config_maps.models_name(service), names.batching_config(service.metadata.name))
    return {"name": "settings", "projected": {"sources": [{"configMap": {"name": name}} for name in files]}}


def _store(service: EmbeddingService) -> list[Mounted]:
    if not fetches(service):
        return []
    cache = service.spec.weights.cache
    claim = cache.persistent_volume_claim
    kind: Object = {"persistentVolumeClaim": {"claimName": claim}}
    if claim is None:
        kind = {"emptyDir": {"sizeLimit": cache.size_limit} if cache.size_limit else {}}
    return [Mounted({"name": "store", **kind}, paths.STORE, read_only=True, fetched=True)]


def _secrets(service: EmbeddingService) -> list[Mounted]:
    spec = service.spec
    made = []
    if spec.auth is not None:
        made.append(_secret("api-keys", spec.auth.api_keys_secret_ref.name, paths.API_KEYS))
    if spec.tls is not None:
        made.append(_secret("tls", spec.tls.secret_ref.name, paths.TLS))
    return made


def _secret(name: str, secret: str, path: str) -> Mounted:
    volume = {"name": name, "secret": {"secretName": secret, "defaultMode": _READ_BY_GROUP}}
    return Mounted(volume, path, read_only=True)


def _weights(service: EmbeddingService) -> list[Mounted]:
    """One volume for each claim and image, however many models lie on it."""
    made: dict[str, Object] = {}
    for model in service.spec.models:
        name = paths.volume_name(model.source)
        if name is None:
            continue
        if model.source.volume is not None:
            made[name] = {"persistentVolumeClaim": {"claimName": model.source.volume.claim_name, "readOnly": True}}
        elif model.source.image is not None:
            made[name] = {"image": {"reference": model.source.image.reference}}
    return [Mounted({"name": name, **kind}, paths.mount_path(name), read_only=True) for name, kind in made.items()]
