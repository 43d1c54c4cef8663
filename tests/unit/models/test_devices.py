"""Which devices there are, and a model on each of them."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from embedfleet.api.models import ModelSpec, Source
from embedfleet_server.engine.copies import Copies, copies_of
from embedfleet_server.engine.errors import DeviceLost, ModelLoadFailed
from embedfleet_server.engine.protocols import Encoded, Model, Rows
from embedfleet_server.models.copying import copied
from embedfleet_server.models.device import devices_of, found_gpus
from embedfleet_server.models.loading import loader
from embedfleet_server.models.problems import ModelProblem
from tests.support.fake_model import FakeModel
from tests.support.tiny_models import make_bert
from tests.support.tiny_tasks import make_sparse

TWO = ("cpu", "cpu:0")
"""The one device that every machine has, by two of torch's names for it."""


@pytest.mark.parametrize(
    ("asked", "found", "devices", "said"),
    [
        (0, 8, ("cpu",), ""),
        (1, 8, ("cuda:0",), ""),
        (3, 8, ("cuda:0", "cuda:1", "cuda:2"), ""),
        (2, 2, ("cuda:0", "cuda:1"), ""),
        (4, 2, ("cuda:0", "cuda:1"), "asks for 4 GPUs, torch finds 2 here: computing on these"),
        (1, 0, ("cpu",), "asks for 1 GPU, torch finds none here: computing on the CPU"),
        (4, 0, ("cpu",), "asks for 4 GPU, torch finds none here: computing on the CPU"),
    ],
)
def test_devices_are_those_asked_for_as_far_as_there_are(
    asked: int, found: int, devices: tuple[str, ...], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By torch's names; a line in the log says where there are fewer."""
    with caplog.at_level(logging.WARNING, logger="embedfleet_server"):
        assert devices_of(asked, lambda: found) == devices
    assert [record.getMessage().partition("manifest ")[2] for record in caplog.records] == ([said] if said else [])


def test_torch_is_asked_how_many_gpus_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """None where it cannot use any."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert found_gpus() == 3
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert found_gpus() == 0


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert(tmp_path_factory.mktemp("models") / "plain")


def load(directory: Path, *, count: int = 2, dtype: str = "Float32") -> Model:
    spec = ModelSpec.model_validate({"name": "tiny", "source": Source(path=str(directory)), "dtype": dtype})
    store = directory.parent / "store"
    return loader(spec, store=store, offline=True, gpu_count=count, devices=lambda asked: TWO[:asked])()


def rows(model: Model, batch: Sequence[Encoded]) -> Rows:
    made = model.forward(batch)
    assert isinstance(made, np.ndarray)
    return made


@pytest.mark.requirement("S2")
@pytest.mark.parametrize("dtype", ["Float32", "Auto"])
def test_a_real_model_is_loaded_on_each_device_and_gives_the_same(directory: Path, dtype: str) -> None:
    """Real weights, twice: one fingerprint, one precision, the same vectors; each copy's weights are its own."""
    made = load(directory, dtype=dtype)
    assert isinstance(made, Copies)
    first, second = copies_of(made)
    assert (made.info.device, made.info.devices) == ("cpu", TWO)
    assert first.info.fingerprint == second.info.fingerprint == made.info.fingerprint
    assert first.info.precision == second.info.precision == made.info.precision
    assert first.info.layout == second.info.layout
    batch = made.encode(["a short text", "another one that is a little longer than the first"] * 3, "")
    np.testing.assert_allclose(rows(first, batch), rows(second, batch), rtol=0, atol=1e-6)
    first.close()
    assert np.isfinite(rows(second, batch)).all()
    second.close()


def test_one_device_needs_no_copies(directory: Path) -> None:
    """The model is what it was."""
    made = load(directory, count=1)
    assert (type(made).__name__, made.info.devices) == ("DenseModel", ("cpu",))
    made.close()


def test_other_tasks_have_copies_too(tmp_path: Path) -> None:
    """A sparse model, whose rows are compared as it has them."""
    made = load(make_sparse(tmp_path / "sparse"))
    assert [copy.info.device for copy in copies_of(made)] == list(TWO)
    made.close()


class Closing(FakeModel):
    """Knows whether it was closed."""

    closed = False

    def close(self) -> None:
        self.closed = True


class Different(Closing):
    """Computes something else."""

    def forward(self, batch: Sequence[Encoded]) -> Rows:
        return -super().forward(batch)


def _raise(error: Exception) -> Model:
    raise error


@pytest.mark.requirement("B12")
@pytest.mark.parametrize(
    ("build", "error", "cause"),
    [
        (lambda: _raise(ModelProblem("no row is finite")), ModelProblem, "no row is finite"),
        (lambda: _raise(OSError("disk")), ModelProblem, "OSError: disk"),
        (
            lambda: _raise(torch.OutOfMemoryError("CUDA out of memory")),
            ModelProblem,
            "OutOfMemoryError",
        ),
        (lambda: _raise(RuntimeError("CUDA error: device-side assert")), DeviceLost, "device-side assert"),
        (lambda: Closing(device="cpu:0", fingerprint="0" * 64), ModelProblem, "its files changed"),
        (
            lambda: Different(device="cpu:0"),
            ModelProblem,
            "it has a cosine of -1.0",
        ),
    ],
)
def test_a_copy_that_fails_fails_all_and_names_its_device(
    build: Callable[[], Model], error: type[Exception], cause: str
) -> None:
    """What was loaded before is given back, so that the next attempt finds its memory free."""
    first, made = Closing(), list[Closing]()

    def copy(precision: str) -> Model:
        assert precision == "float32"
        found = build()
        assert isinstance(found, Closing)
        made.append(found)
        return found

    with pytest.raises(error, match=cause) as caught:
        copied(first, {"cpu:0": copy})
    assert str(caught.value).startswith("its copy on cpu:0: ") == (error is ModelProblem)
    assert first.closed
    assert all(model.closed for model in made)


def test_a_failed_copy_is_the_models_failure(directory: Path) -> None:
    """A device that torch does not know: the model fails to load, and the cause names the device."""
    spec = ModelSpec(name="tiny", source=Source(path=str(directory)), dtype="Float32")
    loads = loader(spec, store=directory, offline=True, gpu_count=2, devices=lambda count: ("cpu", "cuda:77"))
    with pytest.raises(ModelLoadFailed, match="its copy on cuda:77: "):
        loads()


def test_what_is_told_of_copies_is_of_the_first() -> None:
    """But for the devices."""
    first = FakeModel(device="cpu", precision_reason="as named")
    made = copied(first, {"cpu:0": lambda precision: FakeModel(device="cpu:0")})
    assert made.info == replace(first.info, other_devices=("cpu:0",))
