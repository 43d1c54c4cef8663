"""Where a model's files are: a directory, or a repository in the local store, or the hub.

The store has the layout of the Hugging Face cache: `models--ORG--NAME/snapshots/COMMIT/…` and `refs/BRANCH`, a text
file that holds the commit. So a store may be such a cache, or be filled without a hub.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embedfleet.api.models import HuggingFaceSource, Source
from embedfleet_server.models.hub_silence import limit_all
from embedfleet_server.models.problems import ModelProblem
from embedfleet_server.models.safety import check

Fetch = Callable[[str, str, Path], Path]
"""Brings repository, revision into the store; returns the snapshot's directory."""

# What a model needs, so that no pickle, ONNX or OpenVINO export is fetched beside it; artifact.metadata is Stanford's
# ColBERT's.
_WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "artifact.metadata"]
_UNWANTED = ["onnx/*", "openvino/*"]


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's files; `revision` is the commit, where the source has one."""

    directory: Path
    revision: str | None


def hub(repo: str, revision: str, store: Path, *, endpoint: str | None = None, token: str | None = None) -> Path:
    """Download a snapshot into `store`; where address or token are None, they are huggingface_hub's own settings."""
    from huggingface_hub import snapshot_download

    limit_all()
    return Path(
        snapshot_download(
            repo,
            revision=revision,
            cache_dir=store,
            allow_patterns=_WANTED,
            ignore_patterns=_UNWANTED,
            endpoint=endpoint,
            token=token,
        )
    )


def resolve(source: Source, *, store: Path, offline: bool, fetch: Fetch = hub) -> Weights:
    """The files of `source`, checked; the local store first, then, unless `offline`, the hub.

    Raises `ModelProblem` where there are none or they cannot be served.
    """
    if source.hugging_face is not None:
        return _repository(source.hugging_face, store, offline, fetch)
    if source.path is None:
        raise ModelProblem(_elsewhere(source))
    directory = Path(source.path).expanduser()
    check(directory)
    return Weights(directory, None)


def _elsewhere(source: Source) -> str:
    """Why a source that only a cluster has cannot be served by this process; the operator gives pods a path."""
    if source.volume is not None:
        what = f"volume (claim {source.volume.claim_name!r})"
    elif source.image is not None:
        what = f"image ({source.image.reference!r})"
    else:
        return "the source names neither a repository nor a path"
    return f"its source is a {what}, which a cluster mounts; on this machine set source.path or source.huggingFace"


def find(store: Path, repo: str, revision: str) -> Path | None:
    """The directory of a snapshot in `store`, by commit, branch or tag; `None` when it is not there."""
    root = store / f"models--{repo.replace('/', '--')}"
    reference = root / "refs" / revision
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    directory = root / "snapshots" / commit
    return directory if directory.is_dir() else None


def _repository(source: HuggingFaceSource, store: Path, offline: bool, fetch: Fetch) -> Weights:
    local = find(store, source.repo, source.revision)
    if local is None and offline:
        raise ModelProblem(
            f"{source.repo} at {source.revision!r} is not in the local store {store}, and the hub may not be asked "
            "(HF_HUB_OFFLINE); fill the store or allow the hub"
        )
    if local is None or (not offline and not _is_whole(local)):
        local = _fetched(source, store, fetch)
    check(local)
    return Weights(local, local.name)


def _is_whole(directory: Path) -> bool:
    """Whether the snapshot can be served: a download that was cut short cannot, and is worth finishing."""
    try:
        check(directory)
    except ModelProblem:
        return False
    return True


def _fetched(source: HuggingFaceSource, store: Path, fetch: Fetch) -> Path:
    try:
        return fetch(source.repo, source.revision, store)
    except Exception as error:  # the hub's client lets its HTTP library's errors through, whichever that is
        raise ModelProblem(
            f"{source.repo} at {source.revision!r} is not whole in the local store {store} and could not be fetched "
            f"from the hub: {type(error).__name__}: {error}"
        ) from error
