"""What the engine hands on of who asked: the seam that traces hang on."""

import asyncio

import pytest

from embedfleet_server.engine.observer import ORIGIN, BatchRecord, Observer, Several
from tests.support.finishing import finish
from tests.support.simulation import engine
from tests.support.virtual_time import run


class Records(Observer):
    """Keeps the batches and in whose name inputs were tokenised."""

    def __init__(self) -> None:
        self.batches: list[BatchRecord] = []
        self.tokenized_for: list[object] = []

    def batch(self, record: BatchRecord) -> None:
        self.batches.append(record)

    def tokenized(self, model: str, seconds: float) -> None:
        self.tokenized_for.append(ORIGIN.get())


@pytest.mark.requirement("S1")
def test_a_batch_tells_whose_inputs_it_took() -> None:
    """Requests of several callers in one batch: each one's inputs, tokens and arrival, and times that follow."""
    records = Records()

    async def main() -> None:
        made = engine(None)
        made._observer = Several(Observer(), records)  # the simulation's engine takes none
        await made.start()
        await made.embed("semantic", ["the model is loaded"])

        async def ask(origin: object, *texts: str) -> None:
            ORIGIN.set(origin)
            await made.embed("semantic", list(texts))

        made.pause()
        both = [asyncio.create_task(ask(*each)) for each in (("one", "a", "b c"), ("two", "d"), (None, "e"))]
        await asyncio.sleep(1.0)
        made.pause(paused=False)
        await asyncio.gather(*both)
        await finish(made)

    run(main())
    record = records.batches[-1]
    assert {share.origin: share.inputs for share in record.shares()} == {"one": 2, "two": 1, None: 1}
    assert sum(share.tokens for share in record.shares()) == record.own_tokens
    assert all(share.arrived + 0.9 < record.began < record.ended for share in record.shares())
    assert records.tokenized_for == [None, "one", "two", None]
