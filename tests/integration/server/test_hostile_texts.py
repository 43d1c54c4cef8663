"""Hostile texts at the real tokenizer: where it runs, what it never sees, and who is answered meanwhile.

How long a probe waits then is measured by `python -m tests.benchmarks.hostile`.
"""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from embedfleet.api.models import ModelSpec
from embedfleet_server.engine.protocols import Encoded, Item, Rows, Side
from embedfleet_server.models.loading import loader
from tests.support.fake_model import FakeModel
from tests.support.hostile_texts import LONGEST, hostile_texts
from tests.support.served import Served, run, serving
from tools.weights import REPOSITORY, fill

pytestmark = pytest.mark.requirement("S1", "S5")
_CHARACTERS = 100_000  # of each kind: a million, as are taken, hold a tokenizer's thread for a second or two


class Watched(FakeModel):
    """The real tokenizer of all-MiniLM before a fake forward; notes where and what it tokenises."""

    def __init__(self, store: Path) -> None:
        spec = ModelSpec.model_validate({"name": "semantic", "source": {"huggingFace": {"repo": REPOSITORY}}})
        self.real = loader(spec, store=store, offline=True, gpu_count=0)()
        super().__init__(max_tokens=self.real.info.max_tokens, vocabulary=self.real.info.vocabulary)
        self.threads = set[str]()
        self.longest = self.under_way = self.done = 0

    def encode(
        self, items: Sequence[Item], prompt: str, input_type: str | None = None, side: Side | None = None
    ) -> list[Encoded]:
        self.threads.add(threading.current_thread().name)
        self.longest = max(self.longest, *(len(item) for item in items))
        self.under_way += 1
        try:
            return self.real.encode(items, prompt, input_type, side)
        finally:
            self.under_way -= 1
            self.done += 1

    def forward(self, batch: Sequence[Encoded]) -> Rows:
        return np.ones((len(batch), self.info.native_dimensions), np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    store = tmp_path_factory.mktemp("store")
    fill(store)
    made = Watched(store)
    yield made
    made.real.close()


def test_probes_are_answered_while_hostile_texts_are_tokenised(model: Watched) -> None:
    """Each kind of text, all at once, and a million letters without a space: each gets its vector, cut to the model's
    length; probes are answered while tokenising is under way, which never happens on the event loop's thread.
    """
    probes: list[bool] = []

    async def probe(served: Served) -> None:
        while True:
            assert (await served.observe("/live")).status == 200
            probes.append(model.under_way > 0)

    async def main() -> None:
        async with serving({"semantic": lambda: model}, item_timeout_seconds=50) as served:
            probing = asyncio.create_task(probe(served))
            texts = {**hostile_texts(_CHARACTERS), "a million without a space": "x" * LONGEST}
            replies = await asyncio.gather(*(served.embed(text) for text in texts.values()))
            probing.cancel()
            assert {reply.status for reply in replies} == {200}
            tokens = [reply.json["usage"]["total_tokens"] for reply in replies]
            assert 0 < max(tokens) <= model.info.max_tokens
            await asyncio.gather(probing, return_exceptions=True)
            assert probing.cancelled()

    run(main())
    assert sum(probes) >= len(hostile_texts(_CHARACTERS))
    assert model.threads
    assert all(name.startswith("tokenize") for name in model.threads)


def test_what_is_too_long_is_never_tokenised(model: Watched) -> None:
    """A character more than is taken of one text, or of all together, is refused before the tokenizer sees any of it;
    so is what is no Unicode.
    """

    async def main() -> None:
        async with serving({"semantic": lambda: model}) as served:
            done, model.longest = model.done, 0
            for text in hostile_texts(LONGEST + 1).values():
                reply = await served.embed(text)
                assert (reply.status, reply.error["code"]) == (413, "input_too_large")
            assert (await served.embed(["x" * LONGEST] * 17)).status == 413
            assert (await served.embed("x" * 1000 + "\udc00")).status == 422
            assert model.done == done
            assert (await served.embed("good")).status == 200
            assert (model.done, model.longest) == (done + 1, 4)

    run(main())
