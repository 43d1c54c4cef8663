"""A model that stands on several devices: a copy on each, asked for by the name of its device.

What is said of the model, and tokenised, is the first one's. The engine has each batch computed by the copy on the
batch's device (`copy_on`), in the thread of that device.
"""

from collections.abc import Sequence
from dataclasses import replace

from embedfleet_server.engine.protocols import Encoded, Item, Model, ModelInfo, Side, Token
from embedfleet_server.engine.rows import AnyRows


class Copies:
    """The copies as one model (`Model`); whatever does not know of copies computes on the first device."""

    def __init__(self, models: Sequence[Model]) -> None:
        """`models`: one for each device, all of the same weights and settings; the first one speaks for all."""
        self.copies = {model.info.device: model for model in models}
        if len(self.copies) < len(models):
            raise AssertionError(f"This is a bug: {len(models)} copies on {', '.join(self.copies)}")
        self._first = models[0]

    @property
    def info(self) -> ModelInfo:
        """See `Model.info`: the first copy's, with the devices of all."""
        return _of_all([model.info for model in self.copies.values()])

    def encode(
        self, items: Sequence[Item], prompt: str, input_type: str | None = None, side: Side | None = None
    ) -> list[Encoded]:
        """See `Model.encode`."""
        return self._first.encode(items, prompt, input_type, side)

    def tokenize(self, texts: Sequence[str], *, special: bool) -> list[list[Token]]:
        """See `Model.tokenize`."""
        return self._first.tokenize(texts, special=special)

    def decode(self, ids: Sequence[Sequence[int]], *, special: bool) -> list[str]:
        """See `Model.decode`."""
        return self._first.decode(ids, special=special)

    def forward(self, batch: Sequence[Encoded]) -> AnyRows:
        """Rows of the batch, by the first copy."""
        return self._first.forward(batch)

    def peak_mib(self) -> float | None:
        """MiB that the last forward of a copy took at its peak, the most of all."""
        known = [model.peak_mib() for model in self.copies.values()]
        return max((mib for mib in known if mib is not None), default=None)

    def close(self) -> None:
        """Give back what the copies hold."""
        for model in self.copies.values():
            model.close()


def joined(models: Sequence[Model]) -> Model:
    """The copies of one model as one; a single one as it is."""
    return models[0] if len(models) == 1 else Copies(models)


def copies_of(model: Model) -> tuple[Model, ...]:
    """A model's copies, in the order of their devices; of one that stands on one device itself."""
    return tuple(model.copies.values()) if isinstance(model, Copies) else (model,)


def copy_on(model: Model, device: str) -> Model:
    """The copy that computes on `device`."""
    return model.copies[device] if isinstance(model, Copies) else model


def _of_all(infos: Sequence[ModelInfo]) -> ModelInfo:
    """The first one's, with the other devices. One copy that pads is enough for batches to be counted as padded."""
    others = tuple(info.device for info in infos[1:])
    return replace(infos[0], other_devices=others, padded=any(info.padded for info in infos))
