"""One bad input in a batch of 64, with a real model: the further forwards it costs, and what the other 63 get."""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from embedfleet.api import Batching, BatchingSettings
from embedfleet.api.models import ModelSpec
from embedfleet_server.engine import Engine, ModelConfig
from embedfleet_server.engine.protocols import Encoded, Item, Model, ModelInfo, Rows, Side, Token
from embedfleet_server.engine.rows import AnyRows
from tests.benchmarks import loads
from tests.benchmarks.report import Goal, Section, show
from tools.weights import DEFAULT_STORE, REPOSITORY, fill

_NAME = "semantic"
_TEXTS = 64
_PLACES = (0, 63)  # of the bad text among those of the request; in the batch they lie by length
_MOST = 2 * math.log2(_TEXTS) + 1
_COSINE = 0.99999


class Poisoned:
    """A model whose forward raises for a batch that holds one text; counts its forwards."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.bad: Sequence[int] | None = None
        self.forwards = 0

    @property
    def info(self) -> ModelInfo:
        """The model's own."""
        return self.model.info

    def encode(
        self, items: Sequence[Item], prompt: str, input_type: str | None = None, side: Side | None = None
    ) -> list[Encoded]:
        """The model's own."""
        return self.model.encode(items, prompt, input_type, side)

    def tokenize(self, texts: Sequence[str], *, special: bool) -> list[list[Token]]:
        """The model's own."""
        return self.model.tokenize(texts, special=special)

    def decode(self, ids: Sequence[Sequence[int]], *, special: bool) -> list[str]:
        """The model's own."""
        return self.model.decode(ids, special=special)

    def forward(self, batch: Sequence[Encoded]) -> AnyRows:
        """The model's own vectors, unless the bad text is among the batch."""
        self.forwards += 1
        if any(list(item.token_ids) == self.bad for item in batch):
            raise ValueError("the device does not like this text")
        return self.model.forward(batch)

    def peak_mib(self) -> float | None:
        """As the model itself says."""
        return self.model.peak_mib()

    def close(self) -> None:
        """Kept for the next engine."""


def measure(say: Callable[[str], None]) -> Section:
    """The bad text at several places, as one request of 64 and as 64 of one."""
    model = Poisoned(_model())
    texts = list(dict.fromkeys(loads.mix(2 * _TEXTS)))[:_TEXTS]
    encoded = model.encode(texts, "")
    alone = np.concatenate([model.model.forward([one]) for one in encoded])
    section = Section(
        f"Poison: one bad text in a batch of {_TEXTS}, {REPOSITORY} in float32",
        ("requests, and the bad text", "further forwards", "least cosine of the others to their own alone"),
    )
    worst, least = 0, 1.0
    for size, name in ((_TEXTS, f"one of {_TEXTS}"), (1, f"{_TEXTS} of one")):
        for place in _PLACES:
            model.bad = list(encoded[place].token_ids)
            with _quiet():
                rows, further = asyncio.run(_embedded(model, texts, size))
            cosine = _cosine(rows, alone, place)
            section.rows.append(
                (f"{name}, text {place + 1} of {len(encoded[place].token_ids)} tokens", str(further), f"{cosine:.7f}")
            )
            worst, least = max(worst, further), min(least, cosine)
    say(f"poison: {worst} further forwards, cosine {least:.7f}")
    section.goals += [
        Goal(f"one bad text in {_TEXTS}: <= {_MOST:.0f} further forwards", f"{worst} at most", worst <= _MOST),
        Goal(f"the other {_TEXTS - 1}: cosine to their own alone >= {_COSINE}", f"{least:.7f}", least >= _COSINE),
    ]
    return section


def _model() -> Model:
    """The real model, on the CPU, from the local store, which is filled if it is not."""
    from embedfleet_server.models.loading import loader

    store = Path(DEFAULT_STORE).expanduser()
    fill(store)
    source = {"huggingFace": {"repo": REPOSITORY}}
    spec = ModelSpec.model_validate({"name": _NAME, "source": source, "dtype": "Float32"})
    return loader(spec, store=store, offline=True, gpu_count=0)()


async def _embedded(model: Poisoned, texts: Sequence[str], size: int) -> tuple[Rows, int]:
    """Vectors (NaN for the bad one), and how many forwards came after the first, which all texts shared."""
    settings = BatchingSettings(batching=Batching(max_batch_size=_TEXTS, retry_delay_milliseconds=0))
    engine = Engine(_NAME, {_NAME: ModelConfig(_NAME, lambda: model)}, settings)
    await engine.start()
    while not engine.ready:  # noqa: ASYNC110  # the engine says how it is when asked, and calls nobody
        await asyncio.sleep(0.001)
    engine.pause()
    model.forwards = 0
    asked = [asyncio.create_task(engine.embed(_NAME, some)) for some in loads.chunks(texts, size)]
    while engine.stats().waiting < len(texts):  # noqa: ASYNC110  # as above
        await asyncio.sleep(0.001)
    engine.pause(paused=False)
    answers = await asyncio.gather(*asked)
    forwards = model.forwards
    await engine.stop(10.0)
    return np.concatenate([answer.rows for answer in answers]), forwards - 1


def _cosine(rows: Rows, alone: Rows, bad: int) -> float:
    """The least over all but the bad one, whose row must be NaN."""
    assert np.isnan(rows[bad]).all(), "the bad text was given a vector"
    good = [row for row in range(len(rows)) if row != bad]
    a, b = rows[good].astype(np.float64), alone[good].astype(np.float64)
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return float(np.nan_to_num(cosines).min())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the engine's warnings of failed batches, which are what is measured here."""
    log = logging.getLogger("embedfleet.engine")
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = False


def main() -> None:
    """This part by itself."""
    show(measure(print))


if __name__ == "__main__":
    main()
