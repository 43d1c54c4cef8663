"""What a spec names beside its children: Secrets and claims, which somebody else must have made."""

from embedfleet.api import EmbeddingService

_TLS_KEYS = ("tls.crt", "tls.key")


def secrets(service: EmbeddingService) -> dict[str, frozenset[str]]:
    """Each Secret that the pods mount or read, with the keys it must have; no keys: at least one of any name."""
    spec = service.spec
    made: dict[str, frozenset[str]] = {}
    token = spec.weights.token_secret_ref
    if token is not None and any(model.source.hugging_face for model in spec.models):
        made[token.name] = frozenset([token.key])
    if spec.auth is not None:
        made.setdefault(spec.auth.api_keys_secret_ref.name, frozenset())
    if spec.tls is not None:
        name = spec.tls.secret_ref.name
        made[name] = made.get(name, frozenset()) | frozenset(_TLS_KEYS)
    return made


def claims(service: EmbeddingService) -> frozenset[str]:
    """Each PersistentVolumeClaim that the pods mount."""
    cache = service.spec.weights.cache.persistent_volume_claim
    uses_cache = any(model.source.hugging_face for model in service.spec.models)
    named = {model.source.volume.claim_name for model in service.spec.models if model.source.volume}
    return frozenset(named | ({cache} if cache is not None and uses_cache else set()))
