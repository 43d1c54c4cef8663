"""Loading models in tests as the server does."""

from pathlib import Path
from typing import Any

from embedfleet.api.models import ModelSpec, Source
from embedfleet_server.engine.protocols import Model
from embedfleet_server.models.dense import DenseModel
from embedfleet_server.models.loading import loader


def load(directory: Path, *, store: Path | None = None, gpu_count: int = 0, **fields: Any) -> DenseModel:
    """The dense model in `directory`; see `load_any`."""
    model = load_any(directory, store=store, gpu_count=gpu_count, **fields)
    assert isinstance(model, DenseModel)
    return model


def load_any(directory: Path, *, store: Path | None = None, gpu_count: int = 0, **fields: Any) -> Model:
    """The model in `directory`, with `fields` of its `ModelSpec`; the hub is never asked.

    In float32 unless `dtype` says otherwise: what Auto takes depends on the machine.
    """
    spec = ModelSpec(name="tiny", source=Source(path=str(directory)), **{"dtype": "Float32", **fields})
    return loader(spec, store=store or directory.parent / "store", offline=True, gpu_count=gpu_count)()
