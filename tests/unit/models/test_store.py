"""Where weights are found."""

import shutil
from pathlib import Path

import pytest

from embedfleet.api.models import HuggingFaceSource, ImageSource, Source, VolumeSource
from embedfleet_server.models.problems import ModelProblem
from embedfleet_server.models.store import Weights, find, resolve
from tests.support.tiny_models import make_bert

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SOURCE = Source(hugging_face=HuggingFaceSource(repo="org/tiny"))


class Hub:
    """A hub that has one model; counts what is asked of it."""

    def __init__(self, model: Path) -> None:
        self.model = model
        self.asked: list[tuple[str, str]] = []

    def __call__(self, repo: str, revision: str, store: Path) -> Path:
        self.asked.append((repo, revision))
        return put(self.model, store)


def unreachable(repo: str, revision: str, store: Path) -> Path:
    raise ConnectionError("no route to the hub")


def put(model: Path, store: Path) -> Path:
    root = store / "models--org--tiny"
    snapshot = root / "snapshots" / COMMIT
    shutil.copytree(model, snapshot, dirs_exist_ok=True)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / "main").write_text(f"{COMMIT}\n")
    return snapshot


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert(tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.parametrize("offline", [True, False])
def test_the_local_store_comes_first(model: Path, tmp_path: Path, offline: bool) -> None:
    """What is whole in the store is taken without asking the hub, and its revision is the commit."""
    snapshot = put(model, tmp_path)
    assert resolve(SOURCE, store=tmp_path, offline=offline, fetch=unreachable) == Weights(snapshot, COMMIT)


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_snapshot_is_found_by_branch_and_by_commit(model: Path, tmp_path: Path, revision: str) -> None:
    """`refs` holds branches, `snapshots` commits."""
    assert find(tmp_path, "org/tiny", revision) is None
    snapshot = put(model, tmp_path)
    assert find(tmp_path, "org/tiny", revision) == snapshot


def test_the_hub_is_asked_for_what_the_store_lacks(model: Path, tmp_path: Path) -> None:
    """Repository and revision go to the hub as the manifest names them."""
    hub = Hub(model)
    source = Source(hugging_face=HuggingFaceSource(repo="org/tiny", revision="v2"))
    weights = resolve(source, store=tmp_path, offline=False, fetch=hub)
    assert (hub.asked, weights.revision) == ([("org/tiny", "v2")], COMMIT)


def test_a_download_cut_short_is_finished(model: Path, tmp_path: Path) -> None:
    """A snapshot without its weights is fetched again rather than refused for ever."""
    (put(model, tmp_path) / "model.safetensors").unlink()
    hub = Hub(model)
    resolve(SOURCE, store=tmp_path, offline=False, fetch=hub)
    assert hub.asked == [("org/tiny", "main")]


def test_offline_never_asks_the_hub(model: Path, tmp_path: Path) -> None:
    """With the hub off, the error names the repository, the store and the switch."""
    hub = Hub(model)
    with pytest.raises(ModelProblem, match=r"org/tiny at 'main' is not in the local store .*HF_HUB_OFFLINE") as caught:
        resolve(SOURCE, store=tmp_path, offline=True, fetch=hub)
    assert str(tmp_path) in str(caught.value)
    assert hub.asked == []


def test_a_hub_that_fails_is_named_as_the_cause(tmp_path: Path) -> None:
    """The hub's own error stays readable."""
    with pytest.raises(ModelProblem, match="could not be fetched from the hub: ConnectionError: no route to the hub"):
        resolve(SOURCE, store=tmp_path, offline=False, fetch=unreachable)


def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """The error says which directory."""
    with pytest.raises(ModelProblem, match=r"nowhere does not exist"):
        resolve(Source(path=str(tmp_path / "nowhere")), store=tmp_path, offline=True)


def test_a_directory_has_no_revision(model: Path, tmp_path: Path) -> None:
    """A path is no commit."""
    assert resolve(Source(path=str(model)), store=tmp_path, offline=True) == Weights(model, None)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (Source(volume=VolumeSource(claim_name="weights")), r"volume \(claim 'weights'\), which a cluster mounts"),
        (Source(image=ImageSource(reference="registry/weights:1")), r"image \('registry/weights:1'\), which a cluster"),
    ],
)
def test_what_only_a_cluster_mounts_is_told_so(source: Source, words: str, tmp_path: Path) -> None:
    """A manifest of a cluster on a laptop: the error says what the source is and what to set here."""
    with pytest.raises(ModelProblem, match=words + r".*set source\.path or source\.huggingFace"):
        resolve(source, store=tmp_path, offline=True)
