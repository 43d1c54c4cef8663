"""Identical inputs are computed once: those under way, and with a cache those that came before."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from embedfleet.api import Batching, BatchingSettings
from embedfleet_server.batching.types import CRITICAL, LOW
from embedfleet_server.engine import Engine
from embedfleet_server.engine.cache import MIB, Kept, VectorCache
from embedfleet_server.engine.delivery import Answer
from embedfleet_server.engine.errors import BadItems, DeadlineExceeded, EngineError, ItemError, QueueFull
from embedfleet_server.engine.flights import Flight
from embedfleet_server.engine.protocols import Encoded, Item, ModelInfo, Rows, Side
from embedfleet_server.engine.sharing import Sharing
from embedfleet_server.engine.slots import ModelConfig
from tests.support.finishing import finish
from tests.support.simulation import SimulatedModel, SimulatedWorkers, config, engine, texts, tokens_of, vector_of
from tests.support.virtual_time import run

pytestmark = pytest.mark.requirement("B25")


async def started(workers: SimulatedWorkers, batching: Batching | None = None, *models: ModelConfig) -> Engine:
    made = engine(batching, *models, workers=workers)
    await made.start()
    await made.embed("semantic", ["warm"])
    del workers.batches[:]
    return made


def rows_of(items: Sequence[str]) -> Rows:
    return np.stack([vector_of(tokens_of(item)) for item in items])


def computed(workers: SimulatedWorkers) -> int:
    return sum(map(len, workers.batches))


def test_one_forward_for_identical_inputs_of_one_request() -> None:
    """64 inputs, two different ones: two are computed, each caller's index has its row, tokens are those of all."""

    async def main() -> None:
        workers = SimulatedWorkers()
        made = await started(workers)
        items = ["a b", "c"] * 32
        answer = await made.embed("semantic", items)
        np.testing.assert_array_equal(answer.rows, rows_of(items))
        assert (computed(workers), answer.tokens, answer.errors) == (2, [2, 1] * 32, {})
        assert made.state()["shared"]["joined"] == 62
        await finish(made)

    run(main())


def test_one_forward_for_identical_inputs_under_way() -> None:
    """A hundred callers ask for the same text while it is tokenised, queued and computed: one forward of one input."""

    async def main() -> None:
        workers = SimulatedWorkers(start_seconds=1.0, encode_seconds=0.5)
        made = await started(workers)
        asked = []
        for _ in range(100):
            asked.append(asyncio.create_task(made.embed("semantic", ["the same"])))
            await asyncio.sleep(0.01)
        answers = await asyncio.gather(*asked)
        assert {answer.rows.tobytes() for answer in answers} == {rows_of(["the same"]).tobytes()}
        assert computed(workers) == 1
        await made.embed("semantic", ["the same"])
        assert computed(workers) == 2  # nothing is kept without a cache
        await finish(made)

    run(main())


def test_a_row_is_told_as_soon_as_it_is_there() -> None:
    """One who joined an input of a large request has its row long before the rest of that request is computed."""

    async def main() -> None:
        workers = SimulatedWorkers(start_seconds=1.0)
        made = await started(workers, Batching(sizing="Fixed", max_batch_size=1))
        large = asyncio.create_task(made.embed("semantic", ["first", *texts(9, 1)]))
        await asyncio.sleep(0.1)
        answer = await made.embed("semantic", ["first"])
        assert asyncio.get_running_loop().time() < 4
        assert not large.done()
        np.testing.assert_array_equal(answer.rows, rows_of(["first"]))
        await large
        assert computed(workers) == 10
        await finish(made)

    run(main())


def test_other_prompts_and_models_are_other_inputs() -> None:
    """The same text as query and as document, or for another model, is computed for each."""

    async def main() -> None:
        workers = SimulatedWorkers()
        made = await started(workers, None, config("semantic"), config("code"))
        asked = [("semantic", "query"), ("semantic", None), ("code", None), ("code", "query")]
        answers = await asyncio.gather(*(made.embed(model, ["x y"], input_type=kind) for model, kind in asked))
        assert computed(workers) == 4
        assert answers[0].tokens == [3]
        assert answers[1].tokens == [2]
        await finish(made)

    run(main())


def test_one_whose_leader_goes_away_is_computed_for_itself() -> None:
    """Of three callers the first cancels, the second runs out of time: the third has its row all the same."""

    async def main() -> None:
        workers = SimulatedWorkers(start_seconds=2.0)
        made = await started(workers)
        busy = asyncio.create_task(made.embed("semantic", ["busy"]))
        await asyncio.sleep(0.01)
        first = asyncio.create_task(made.embed("semantic", ["x"]))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(made.embed("semantic", ["x"], within=1.0))
        third = asyncio.create_task(made.embed("semantic", ["x"]))
        await asyncio.sleep(0.01)
        first.cancel()
        with pytest.raises(DeadlineExceeded):
            await second
        np.testing.assert_array_equal((await third).rows, rows_of(["x"]))
        await busy
        assert computed(workers) == 2
        await finish(made)

    run(main())


def test_inputs_whose_leaders_go_away_in_another_order_keep_their_places() -> None:
    """Of two that joined two others the second is left alone first: each row is still that of its input."""

    async def main() -> None:
        made = await started(SimulatedWorkers(start_seconds=1.0, encode_seconds=0.5))
        leaders = [asyncio.create_task(made.embed("semantic", [text])) for text in ("first", "second")]
        await asyncio.sleep(0.1)
        asked = asyncio.create_task(made.embed("semantic", ["first", "second"]))
        await asyncio.sleep(0.1)
        for leader in reversed(leaders):
            leader.cancel()
            await asyncio.sleep(0.1)
        np.testing.assert_array_equal((await asked).rows, rows_of(["first", "second"]))
        await finish(made)

    run(main())


def test_nobody_waits_behind_another_tenant_or_a_lower_priority() -> None:
    """The same text of another tenant, or at a higher priority than the one under way, goes its own way."""

    async def main() -> None:
        workers = SimulatedWorkers(start_seconds=1.0)
        made = await started(workers, Batching(sizing="Fixed", max_batch_size=1))
        low = asyncio.create_task(made.embed("semantic", [*texts(20, 1), "x"], priority=LOW, tenant="a"))
        await asyncio.sleep(0.1)
        ways: tuple[tuple[int, str], ...] = ((CRITICAL, "a"), (LOW, "b"))
        asked = [made.embed("semantic", ["x"], priority=priority, tenant=tenant) for priority, tenant in ways]
        await asyncio.gather(*asked)
        assert asyncio.get_running_loop().time() < 8
        await low
        assert computed(workers) == 23
        await finish(made)

    run(main())


def test_an_input_at_fault_fails_for_all_who_asked_for_it() -> None:
    """Each caller is told its own index of the one bad input, and none of them costs further forwards."""

    async def main() -> None:
        class Poisoned(SimulatedModel):
            def forward(self, batch: Sequence[Encoded]) -> Rows:
                if any(tokens_of("bad")[0] in item.token_ids for item in batch):
                    raise RuntimeError("no")
                return super().forward(batch)

        workers = SimulatedWorkers(encode_seconds=0.1)
        made = await started(workers, Batching(max_retries=0), ModelConfig("semantic", Poisoned))
        answers = await asyncio.gather(
            made.embed("semantic", ["bad"]),
            made.embed("semantic", ["good", "bad", "good", "bad"]),
            made.embed("semantic", ["good", "good", "well", "bad"], tenant="who joins nobody"),
        )
        assert [sorted(answer.errors) for answer in answers] == [[0], [1, 3], [3]]
        assert [error.index for answer in answers[1:] for error in answer.errors.values()] == [1, 3, 3]
        np.testing.assert_array_equal(answers[1].rows[[0, 2]], rows_of(["good", "good"]))
        assert workers.batches.count([1]) <= 4
        await finish(made)

    run(main())


def test_every_bad_index_is_named_though_inputs_are_alike() -> None:
    """Inputs refused by the tokenizer: each of their places is listed, also where they are alike."""

    async def main() -> None:
        class Strict(SimulatedModel):
            def encode(
                self, items: Sequence[Item], prompt: str, input_type: str | None = None, side: Side | None = None
            ) -> list[Encoded]:
                wrong = [ItemError(i, "empty", "is empty") for i, item in enumerate(items) if item == ""]
                if wrong:
                    raise BadItems(wrong)
                return super().encode(items, prompt)

        made = await started(SimulatedWorkers(), None, ModelConfig("semantic", Strict))
        with pytest.raises(BadItems) as caught:
            await made.embed("semantic", ["a", "", "a", ""])
        assert [error.index for error in caught.value.errors] == [1, 3]
        await finish(made)

    run(main())


@pytest.mark.requirement("B7")
def test_inputs_that_join_others_keep_their_places() -> None:
    """Ten places: eight callers of one text hold eight of them until it is there; three more do not fit."""

    async def main() -> None:
        made = await started(SimulatedWorkers(start_seconds=1.0), Batching(max_queued_requests=10))
        same = [asyncio.create_task(made.embed("semantic", ["x"])) for _ in range(9)]
        await asyncio.sleep(0.1)
        assert made.total_queue_depth == 8  # the first runs
        with pytest.raises(QueueFull):
            await made.embed("semantic", texts(3, 1))
        await asyncio.gather(*same)
        assert made.total_queue_depth == 0
        await finish(made)

    run(main())


def test_a_cache_answers_what_came_before_until_it_is_switched_off() -> None:
    """With `vectorCacheMiB` a text is computed once for good; set to 0 while running, everything kept is dropped."""

    async def main() -> None:
        workers = SimulatedWorkers()
        made = await started(workers, Batching(vector_cache_mib=1))
        items = texts(5, 2)
        first = await made.embed("semantic", items)
        again = await made.embed("semantic", [*items[3:], "new", items[0]])
        np.testing.assert_array_equal(again.rows, rows_of([*items[3:], "new", items[0]]))
        assert (computed(workers), again.tokens, first.errors) == (6, [2, 2, 1, 2], {})
        shared = made.state()["shared"]
        assert (shared["cache_hits"], shared["cache_misses"]) == (3, 1 + 5 + 1)
        made.apply(BatchingSettings(batching=Batching()))
        assert made.state()["shared"]["cached"] == 0
        await made.embed("semantic", items)
        assert computed(workers) == 11
        await finish(made)

    run(main())


def test_what_failed_is_not_kept() -> None:
    """A row that is not finite is computed again when it is asked for again."""

    async def main() -> None:
        class Once(SimulatedModel):
            sick = True

            def forward(self, batch: Sequence[Encoded]) -> Rows:
                rows = super().forward(batch)
                if self.sick and len(batch[0].token_ids) == 2:
                    rows[0, 0], self.sick = np.nan, False
                return rows

        made = await started(SimulatedWorkers(), Batching(vector_cache_mib=1), ModelConfig("semantic", Once))
        assert list((await made.embed("semantic", ["a b"])).errors) == [0]
        again = await made.embed("semantic", ["a b"])
        assert not again.errors
        np.testing.assert_array_equal(again.rows, rows_of(["a b"]))
        await finish(made)

    run(main())


def test_what_was_cut_off_is_said_of_a_kept_row_too() -> None:
    """A text longer than the model takes is named as truncated whether it is computed or found in the cache."""

    async def main() -> None:
        class Short(SimulatedModel):
            def encode(
                self, items: Sequence[Item], prompt: str, input_type: str | None = None, side: Side | None = None
            ) -> list[Encoded]:
                whole = super().encode(items, prompt)
                return [Encoded(item.token_ids[:2], truncated=len(item.token_ids) > 2) for item in whole]

        made = await started(SimulatedWorkers(), Batching(vector_cache_mib=1), ModelConfig("semantic", Short))
        first = await made.embed("semantic", ["a b", "a b c d"])
        again = await made.embed("semantic", ["a b c d", "new", "a b"])
        assert (first.truncated, again.truncated) == ([1], [0])
        await finish(made)

    run(main())


def test_an_answer_put_together_says_how_long_its_own_part_took() -> None:
    """Half of a request is found in the cache: the times told are those of the half that was computed."""

    async def main() -> None:
        made = await started(SimulatedWorkers(start_seconds=1.0, seconds_per_token=0), Batching(vector_cache_mib=1))
        await made.embed("semantic", ["kept"])
        busy = asyncio.create_task(made.embed("semantic", ["busy"]))
        await asyncio.sleep(0.25)
        answer = await made.embed("semantic", ["kept", "new"])
        assert (answer.queue_seconds, answer.compute_seconds) == pytest.approx((0.75, 1.0))
        await busy
        await finish(made)

    run(main())


def test_nothing_kept_outlives_a_change_of_the_model() -> None:
    """Other weights under the same name are another fingerprint: the same text is computed anew."""

    async def main() -> None:
        sharing, asked = Sharing(), list[str]()
        sharing.cache.resize(MIB)

        async def encode(items: list[Item]) -> list[Encoded]:
            return [Encoded([1]) for _ in items]

        for fingerprint in ("old", "new", "old"):
            info = replace(SimulatedModel().info, fingerprint=fingerprint)

            async def compute(encoded: list[Encoded], flight: Flight, info: ModelInfo = info) -> Answer:
                asked.append(info.fingerprint)
                row = np.full((1, info.native_dimensions), len(asked), np.float32)
                return Answer(row, [1], [], {}, 0.0, 0.0, info)

            answer = await sharing.embed(info, HOW, ["x"], Flight(), encode, compute)
        assert asked == ["old", "new"]
        assert answer.rows[0, 0] == 1

    run(main())


HOW = "", None, None, True, 0


def test_the_cache_keeps_its_bound_and_what_was_used_last() -> None:
    """A quarter MiB of rows of 384 numbers: some 130 of 1,000 stay, the newest and the one that was asked for again."""
    cache = VectorCache(MIB // 4)
    for number in range(1000):
        cache.put_many(
            [
                (
                    ("f", HOW, f"text {number}"),
                    Kept(np.zeros((1, 384), np.float32), 3, truncated=False),
                )
            ]
        )
        assert cache.get_many([("f", HOW, "text 0")]).keys() == {0}
        assert cache.bytes <= MIB // 4
    assert 100 < len(cache) < 140
    assert cache.get_many(
        [
            ("f", HOW, "text 999"),
            ("f", HOW, "text 500"),
            ("g", HOW, "text 999"),
        ]
    ).keys() == {0}


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_each_caller_gets_its_rows_or_its_error(seed: int) -> None:
    """Few texts, many callers who cancel or run out of time, a device that fails now and then: no row is another's.

    Afterwards nothing is under way, no place is taken and no input was computed for nobody but by a batch under way.
    """

    async def main() -> None:
        chance = random.Random(seed)

        class Shaky(SimulatedModel):
            def forward(self, batch: Sequence[Encoded]) -> Rows:
                if chance.random() < 0.05 and len(batch[0].token_ids) < 9:
                    raise OSError("the link is down")
                return super().forward(batch)

        batching = Batching(vector_cache_mib=chance.choice([0, 1]), max_queued_requests=64, max_retries=1)
        made = await started(
            SimulatedWorkers(0.05, 0.01, encode_seconds=0.01), batching, ModelConfig("semantic", Shaky)
        )
        ends: Counter[str] = Counter()

        async def ask() -> None:
            items = [f"t{chance.randint(0, 12)}" for _ in range(chance.randint(1, 6))]
            within, priority = chance.choice([None, None, 0.3]), chance.choice([LOW, CRITICAL])
            try:
                answer = await made.embed(
                    "semantic", items, within=within, priority=priority, tenant=chance.choice("ab")
                )
            except EngineError as error:
                ends[type(error).__name__] += 1
                return
            good = [index for index in range(len(items)) if index not in answer.errors]
            np.testing.assert_array_equal(answer.rows[good], rows_of(items)[good] if good else answer.rows[good])
            ends["answer"] += 1

        asked = []
        for _ in range(200):
            asked.append(asyncio.create_task(ask()))
            await asyncio.sleep(chance.choice([0.0, 0.01, 0.1]))
            for task in chance.sample(asked, len(asked) // 40):
                task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        assert not [task for task in asked if not task.cancelled() and task.exception()]
        assert ends["answer"] > 20
        assert (made.total_queue_depth, len(made._sharing)) == (0, 0)
        stats = made.stats()
        assert stats.submitted == stats.completed + stats.failed + stats.cancelled
        await finish(made)

    run(main())
