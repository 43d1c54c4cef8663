"""Rows of a batch side by side on a CPU, each by one thread."""

import gc
import logging
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedfleet.api.models import ModelSpec, Source
from embedfleet_server import environment
from embedfleet_server.engine.protocols import Item, Model, Pair
from embedfleet_server.models import lanes, loading
from embedfleet_server.models.dense import DenseModel
from embedfleet_server.models.forward import Forward
from embedfleet_server.models.lanes import Begun, Lanes
from embedfleet_server.models.memory import Peaks, bytes_per_token
from tests.support.loading import load, load_any
from tests.support.tiny_models import make_bert, make_deberta
from tests.support.tiny_tasks import make_multi_vector, make_reranker, make_sparse

pytestmark = pytest.mark.requirement("S2", "S5")
TEXTS = [" ".join(["word"] * (1 + count % 9)) for count in range(120)]
FEW = TEXTS[:4]
Make = Callable[[Path], Path]


class Recorded(Lanes):
    """Lanes that tell how many parts they were given at a time."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.given: list[int] = []

    def begin(self, function: Callable[[Any], Any], parts: Sequence[Any]) -> Begun[Any]:
        self.given.append(len(parts))
        return super().begin(function, parts)


@pytest.fixture
def two() -> Recorded:
    return Recorded(2)


@pytest.fixture
def threads() -> Iterator[None]:
    """Torch computes with three, and afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def forward_of(model: Any) -> Forward:
    found: Forward = model._forward if hasattr(model, "_forward") else model._computed()[0]
    return found


def items(model: Model, texts: list[str]) -> list[Item]:
    return [Pair("which words", text) for text in texts] if model.info.task == "Rerank" else list(texts)


def as_array(rows: Any) -> Any:
    """What can be compared of any kind of rows."""
    return (
        np.concatenate([np.ravel(np.asarray(getattr(rows, name))) for name in names])
        if (names := [name for name in ("values", "vectors", "indices", "offsets") if hasattr(rows, name)])
        else np.asarray(rows)
    )


def test_a_lane_computes_with_one_thread(threads: None) -> None:
    """And whoever asked for lanes with as many as before, as do threads that begin later."""
    both = threading.Barrier(2, timeout=30)

    def told(_: int) -> tuple[int, str]:
        both.wait()
        return torch.get_num_threads(), Path(f"/proc/self/task/{threading.get_native_id()}/comm").read_text()

    assert Lanes(2).map(told, range(2)) == [(1, "device lane\n")] * 2
    assert torch.get_num_threads() == 3
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [3]


def test_parts_are_computed_at_once_and_come_in_their_order() -> None:
    """Each of two parts waits for the other: one after the other they would wait for ever."""
    both = threading.Barrier(2, timeout=30)

    def compute(part: str) -> str:
        both.wait()
        return part.upper()

    assert Lanes(2).map(compute, ["a", "b"]) == ["A", "B"]


def test_what_a_part_raises_comes_when_no_other_is_computed() -> None:
    """So that nothing uses a model any more that is then given back."""
    ended: list[int] = []

    def compute(fails: bool) -> None:
        if fails:
            raise MemoryError("of the first")
        ended.append(sum(range(3_000_000)))  # some 50 ms, in which the first one's failure would have come

    with pytest.raises(MemoryError, match="of the first"):
        Lanes(2).map(compute, [True, False])
    assert ended


def test_parts_that_are_begun_are_computed_while_nobody_waits() -> None:
    """Behind those that are there: a lane whose own has ended begins one of the next, which may be there first."""
    lanes, release, second_is_there = Lanes(2), threading.Event(), threading.Event()

    def slow(part: str) -> str:
        assert part == "b" or release.wait(30)
        return part.upper()

    def next_(part: str) -> str:
        second_is_there.set()
        return part.upper()

    first, second = lanes.begin(slow, ["a", "b"]), lanes.begin(next_, ["c", "d"])
    assert second_is_there.wait(30)
    assert second() == ["C", "D"]
    release.set()
    assert first() == ["A", "B"]
    assert first.ended > second.ended


def test_lanes_settle_when_nothing_is_computed_any_more() -> None:
    """Also what failed, and what never began; not what somebody maps, who waits for it."""
    lanes, release, seen = Lanes(2), threading.Event(), list[int]()

    def compute(part: int) -> None:
        assert release.wait(30)
        seen.append(part)
        raise MemoryError(part)

    def mapped(_: int) -> None:
        lanes.settle()

    lanes.map(mapped, [1])
    waited_for = lanes.begin(compute, [1, 2, 3])

    def settle() -> None:
        lanes.settle()
        seen.append(0)

    settling = threading.Thread(target=settle)
    settling.start()
    release.set()
    settling.join(30)
    assert sorted(seen[:-1]) == [1, 2, 3]
    assert seen[-1] == 0
    with pytest.raises(MemoryError):
        waited_for()
    lanes._pool.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        lanes.begin(compute, [4])
    lanes.settle()


class Held:
    """What a part needs while it is computed."""


@pytest.fixture
def collecting_off() -> Iterator[None]:
    """As in the server: what holds itself is there until someone looks for it."""
    gc.disable()
    yield
    gc.enable()


def test_what_a_failed_part_held_is_given_back(collecting_off: None) -> None:
    """Of both parts, as soon as the failure is forgotten: the next batch needs its memory."""
    held = list[weakref.ref[Held]]()

    def compute(part: int) -> None:
        mine = Held()
        held.append(weakref.ref(mine))
        raise MemoryError(part)

    with suppress(MemoryError):
        Lanes(2).map(compute, [1, 2])
    assert [one() for one in held] == [None, None]


def test_a_thread_that_the_system_refuses_leaves_the_number_as_it_was(
    threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first lane has set its own by then; it ends."""
    begin, begun = threading.Thread.start, list[threading.Thread]()

    def start(thread: threading.Thread) -> None:
        if begun:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        begin(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            Lanes(2)
    assert torch.get_num_threads() == 3
    begun[0].join(5)
    assert not begun[0].is_alive()


def test_idle_lanes_do_not_keep_a_process_from_its_end() -> None:
    """It ends in order, as it would without them: what is to be done at its end is."""
    program = (
        "import atexit; from embedfleet_server.models.lanes import Lanes; "
        "from embedfleet_server.__main__ import leave; "
        "Lanes(2).map(print, [1]); atexit.register(print, 'the end'); leave(3)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, ended.stdout) == (3, "1\nthe end\n")


@pytest.mark.skipif(not environment.can_bind(), reason="hardware: nothing is bound on this system")
def test_lanes_run_anywhere_though_a_bound_thread_starts_them() -> None:
    """They would all stand on one core."""

    def bound() -> list[set[int]]:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        return Lanes(3).map(lambda _: os.sched_getaffinity(0), range(3))

    with ThreadPoolExecutor(1) as one:
        assert one.submit(bound).result() == [os.sched_getaffinity(os.getpid())] * 3


def test_lanes_are_shared_and_as_many_as_torch_s_threads(threads: None) -> None:
    """One set for all models; none where torch has one thread."""
    found = lanes.shared()
    assert found is not None
    assert found.count == 3
    assert lanes.shared() is found
    torch.set_num_threads(1)
    assert lanes.shared() is None


@pytest.mark.parametrize(("beside", "whole", "worth_it"), [(0.2, 0.4, True), (0.43, 0.4, True), (0.45, 0.4, False)])
def test_the_trial_takes_what_is_not_clearly_longer(beside: float, whole: float, worth_it: bool) -> None:
    """By a clock that each form moves on by what it is said to take; the first of all calls takes longer."""
    share, took = tried(beside, whole, first=0.1)
    assert share == pytest.approx(beside / whole)
    assert lanes.is_worth_it(share) == worth_it
    assert set(took) == {"row"}
    assert len(took) > 2


def test_the_first_calls_decide_about_a_large_model() -> None:
    """Each form is computed once, since a load is to end."""
    share, took = tried(4.0, 5.0)
    assert share == pytest.approx(0.8)
    assert took == ["row", "row"]


def tried(beside: float, whole: float, first: float = 0.0) -> tuple[float, list[str]]:
    """The outcome of a trial of two rows, and what all threads computed; `first` is what the first call takes more."""
    now, took = [first], list[str]()

    class Told(Lanes):
        def map(self, function: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
            now[0] += beside + (0 if took else first)
            return []

    def compute(part: str) -> None:
        took.append(part)
        now[0] += whole / 2

    return lanes.share(Told(2), compute, ["row"] * 2, ["row"] * 2, clock=lambda: now[0]), took


@pytest.mark.parametrize(("width", "layers", "tokens"), [(384, 4, 512), (8192, 2, 256), (8192, 8, 128), (8192, 9, 0)])
def test_large_models_are_tried_with_few_tokens_or_not_at_all(width: int, layers: int, tokens: int) -> None:
    """What takes seconds of each load is not tried."""
    module = torch.nn.Sequential(*(torch.nn.Linear(width, width, device="meta") for _ in range(layers)))
    assert lanes.trial(module) == tokens


@pytest.mark.parametrize("make", [make_bert, make_sparse, make_multi_vector, make_reranker])
def test_rows_are_the_same_on_lanes(make: Make, tmp_path: Path, two: Recorded) -> None:
    """For every task; a batch of few tokens is computed by all threads."""
    model = load_any(make(tmp_path))
    forward = forward_of(model)
    forward.lanes = None
    batch, few = model.encode(items(model, TEXTS), ""), model.encode(items(model, FEW), "")
    whole = model.forward(batch)
    forward.lanes = two
    made = model.forward(batch)
    assert two.given
    assert all(count % 2 == 0 for count in two.given)
    np.testing.assert_allclose(as_array(made), as_array(whole), rtol=0, atol=1e-5)
    before = list(two.given)
    model.forward(few)
    assert two.given == before


def test_vectors_of_tokens_are_the_same_on_lanes(tmp_path: Path, two: Recorded) -> None:
    """The view of a dense model takes its lanes over."""
    model = load(make_bert(tmp_path))
    model._forward.lanes = None
    view = model.token_vectors()
    batch = view.encode(TEXTS, "")
    whole = view.forward(batch)
    model._forward.lanes = two
    on_lanes = model.token_vectors()
    np.testing.assert_allclose(as_array(on_lanes.forward(batch)), as_array(whole), rtol=0, atol=1e-5)
    assert two.given == [2]


def test_memory_counts_all_rows_that_are_computed_at_once(tmp_path: Path, two: Recorded) -> None:
    """Two rows of half the tokens take what one of all does."""
    model = load(make_bert(tmp_path))
    batch = model.encode(["some words of one length"] * 120, "")
    model._forward.lanes = two
    model.forward(batch)
    tokens = sum(len(encoded.token_ids) for encoded in batch)
    whole = tokens * bytes_per_token(model._forward._modules) / 2**20
    assert model.peak_mib() == pytest.approx(whole)
    peaks = Peaks("cpu", model._forward._modules)
    peaks.begin()
    peaks.piece(2 * tokens)
    peaks.end()
    assert peaks.last_mib == pytest.approx(2 * whole)


def test_the_same_bits_are_computed_without_lanes(tmp_path: Path, two: Recorded) -> None:
    """What shares a batch decides whether there are enough tokens for them."""
    model = load(make_bert(tmp_path))
    model._forward.lanes = two
    model.keep_bits(on=True)
    model.forward(model.encode(TEXTS, ""))
    assert two.given == []


def test_bits_that_are_asked_for_in_the_midst_of_a_batch_are_those_of_the_next(
    tmp_path: Path, two: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How rows keep their bits is not found out in a lane, which computes otherwise than all threads."""
    model = load(make_bert(tmp_path))
    model._forward.lanes = two
    within, asked = list[int](), list[int]()
    packed = model._forward.packed
    assert packed is not None
    form = packed.form

    def found() -> Any:
        asked.append(torch.get_num_threads())
        return form()

    def switched(row: Any, texts: Sequence[int]) -> Any:
        within.append(len(texts))
        model.keep_bits(on=True)
        return spread(row, texts)

    spread = packed.spread
    monkeypatch.setattr(packed, "form", found)
    monkeypatch.setattr(packed, "spread", switched)
    model.forward(model.encode(TEXTS, ""))
    assert within
    assert asked == []
    model.forward(model.encode(FEW, ""))
    assert asked


def test_lanes_are_taken_again_once_bits_are_not_asked_for_any_more(tmp_path: Path, two: Recorded) -> None:
    """And their rows are computed as any other."""
    model = load(make_bert(tmp_path))
    model._forward.lanes = two
    rows = model.forward(model.encode(TEXTS, ""))
    model.keep_bits(on=True)
    model.forward(model.encode(TEXTS, ""))
    assert model._forward.form() is not None
    model.keep_bits(on=False)
    np.testing.assert_array_equal(model.forward(model.encode(TEXTS, "")), rows)
    assert model._forward.form() is None
    assert len(two.given) == 2


@pytest.mark.parametrize("keeps", [False, True])
def test_a_batch_of_all_threads_waits_for_the_rows_on_lanes(keeps: bool, tmp_path: Path, two: Recorded) -> None:
    """Few tokens, and any with the same bits: neither beside the lanes, nor with another form than these began with."""
    model = load(make_bert(tmp_path))
    model._forward.lanes = two
    packed = model._forward.packed
    assert packed is not None
    begun, release, under_way, seen = threading.Event(), threading.Event(), [0], list[int]()

    def held(part: int) -> None:
        under_way[0] = 1
        begun.set()
        assert release.wait(30)
        under_way[0] = 0

    def settle() -> None:
        release.set()
        Lanes.settle(two)

    def computed(*_: Any) -> None:
        seen.append(under_way[0])

    two.settle = settle  # type: ignore[method-assign]  # tells that it is waited for
    waited = two.begin(held, [1])
    assert begun.wait(30)
    hook = model._forward._modules[0].register_forward_pre_hook(computed)
    try:
        model.keep_bits(on=keeps)
        model.forward(model.encode(TEXTS if keeps else FEW, ""))
    finally:
        release.set()
        waited()
        hook.remove()
    assert seen
    assert not any(seen)


def test_inputs_of_two_kinds_are_not_parted(tmp_path: Path, two: Recorded) -> None:
    """Queries and documents of a multi-vector model take a call each."""
    model = load_any(make_multi_vector(tmp_path))
    forward_of(model).lanes = two
    model.forward(model.encode(TEXTS, "", "query") + model.encode(TEXTS, "", "document"))
    assert two.given == []


def test_a_padded_model_has_no_lanes(tmp_path: Path, two: Recorded) -> None:
    """Its pieces are of unlike sizes."""
    model = load(make_deberta(tmp_path))
    assert model.try_lanes(two) is None
    assert model._forward.lanes is None
    assert two.given == []


@pytest.mark.parametrize("kind", ["dynamic", "longrope", {"full_attention": "default", "sliding": "dynamic"}])
def test_embeddings_that_change_with_the_row_have_no_lanes(kind: Any, tmp_path: Path, two: Recorded) -> None:
    """Two rows would take each other's."""
    model = load(make_bert(tmp_path))
    model._forward.lanes = None
    model._forward._modules[0].rope_type = kind
    assert model.try_lanes(two) is None
    assert two.given == []


@pytest.mark.parametrize(("share", "used"), [(0.8, True), (1.2, False)])
def test_a_loaded_model_has_lanes_unless_they_are_slower(
    share: float, used: bool, tmp_path: Path, two: Recorded, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """The log says how rows are computed, and what was measured."""
    monkeypatch.setattr(loading, "shared", lambda: two)
    monkeypatch.setattr(lanes, "share", lambda on, compute, side, whole: [on.map(compute, side), share][1])
    with caplog.at_level(logging.INFO, logger=loading.__name__):
        model = load(make_bert(tmp_path))
    assert (model._forward.lanes is two) == used
    how = "side by side, each by one thread" if used else "one by one, by all threads"
    assert (
        f"model tiny: rows of texts are computed {how}; side by side they take {share:.2f} of the time" in caplog.text
    )


def test_no_clock_is_asked_where_none_may_decide(
    tmp_path: Path, two: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where each load is to make the same of a model."""
    monkeypatch.setattr(loading, "shared", lambda: two)
    spec = ModelSpec(name="tiny", source=Source(path=str(make_bert(tmp_path))), dtype="Float32")
    model = loading.loader(spec, store=tmp_path / "store", offline=True, gpu_count=0, timed=False)()
    assert isinstance(model, DenseModel)
    assert model._forward.lanes is None
    assert two.given == []


def test_a_trial_that_fails_leaves_the_model_as_it_is(
    tmp_path: Path, two: Recorded, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """It is told, with the reason; the model serves."""

    def fails(*_: Any) -> float:
        raise RuntimeError("no room")

    monkeypatch.setattr(loading, "shared", lambda: two)
    monkeypatch.setattr(lanes, "share", fails)
    model = load(make_bert(tmp_path))
    assert "model tiny: its rows cannot be computed side by side: RuntimeError: no room" in caplog.text
    assert model.forward(model.encode(FEW, "")).shape[0] == len(FEW)
