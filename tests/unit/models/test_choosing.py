"""How a precision is chosen and a model self-tested, with models whose rows and times are made up."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from embedfleet_server.engine.protocols import Encoded, Item, Rows
from embedfleet_server.models import choosing
from embedfleet_server.models.choosing import Around, automatic, layer_times, named
from embedfleet_server.models.linear import PackedLinear
from embedfleet_server.models.precision import Hardware, Times
from embedfleet_server.models.problems import ModelProblem
from embedfleet_server.models.reference import Reference
from embedfleet_server.models.self_test import items
from tests.support.fake_model import FakeModel, vectors

pytestmark = pytest.mark.requirement("S5")
HOPPER, ZEN, OLD = Hardware(capability=(9, 0)), Hardware(flags=frozenset({"avx512_bf16"})), Hardware()
KNOWN: list[Item] = items("Dense")


class Clock:
    """Time that passes when a model computes."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Made(FakeModel):
    """Rows turned away from float32's by `angle`, each forward as long as `seconds` for an input."""

    def __init__(self, precision: str, angle: float, seconds: float, clock: Clock) -> None:
        super().__init__(precision=precision)
        self.closed = False
        self._angle, self._seconds, self._clock = angle, seconds, clock

    def forward(self, batch: Sequence[Encoded]) -> Rows:
        self._clock.now += self._seconds * len(batch)
        rows = super().forward(batch)
        turned: Rows = rows * np.cos(self._angle) + np.roll(rows, 1, axis=1) * np.sin(self._angle)
        return turned

    def close(self) -> None:
        self.closed = True


class Maker:
    """Builds such models, and keeps them; `problems` are precisions that cannot be built."""

    def __init__(self, angles: dict[str, float], seconds: dict[str, float] | None = None, problems: str = "") -> None:
        self.clock = Clock()
        self.made: list[Made] = []
        self._angles, self._seconds, self._problems = angles, seconds or {}, problems

    def __call__(self, precision: str) -> Made:
        if precision == self._problems:
            raise ModelProblem("its vector of a known text is not finite")
        model = Made(precision, self._angles.get(precision, 0.0), self._seconds.get(precision, 0.01), self.clock)
        self.made.append(model)
        return model

    @property
    def order(self) -> list[str]:
        return [model.info.precision for model in self.made]

    def open(self) -> list[str]:
        return [model.info.precision for model in self.made if not model.closed]


def around(hardware: Hardware, maker: Maker, **more: Any) -> Around:
    return Around(hardware, clock=maker.clock, **more)


def reference(turn: Callable[[Rows], Rows] = lambda rows: rows, task: Any = "Dense") -> Reference:
    return Reference(task, tuple(KNOWN), turn(vectors(KNOWN)))


def test_a_gpu_takes_its_half_precision_where_it_is_close() -> None:
    """Float32 is computed first and dropped, so that two never stand on the device; the reason has the cosine."""
    maker = Maker({"bfloat16": 0.01})
    model = automatic(maker, around(HOPPER, maker))
    assert (model.info.precision, maker.order, maker.open()) == ("bfloat16", ["float32", "bfloat16"], ["bfloat16"])
    assert "cosine 0.9999" in model.info.precision_reason


def test_a_gpu_falls_back_step_by_step() -> None:
    """bfloat16 is too far, float16 not finite: float32, with both reasons."""
    maker = Maker({"bfloat16": 0.2}, problems="float16")
    model = automatic(maker, around(HOPPER, maker))
    assert (model.info.precision, maker.open()) == ("float32", ["float32"])
    assert "bfloat16 has a cosine of" in model.info.precision_reason
    assert "not finite" in model.info.precision_reason


def test_a_gpu_without_room_for_float32_says_so() -> None:
    """Nothing is compared, nothing else is loaded, and that is said."""
    maker = Maker({})
    model = automatic(maker, around(HOPPER, maker, has_room=False))
    assert (model.info.precision, maker.order) == ("bfloat16", ["bfloat16"])
    assert "not compared" in model.info.precision_reason


def test_a_reference_saves_the_second_load() -> None:
    """With a stored reference half precision is compared with that."""
    maker = Maker({"bfloat16": 0.01})
    model = automatic(maker, around(HOPPER, maker, reference=reference(), has_room=False))
    assert (model.info.precision, maker.order) == ("bfloat16", ["bfloat16"])
    assert "cosine 0.9999" in model.info.precision_reason


def test_a_cpu_measures() -> None:
    """Twice as fast and close: bfloat16, with both times; the other model is closed."""
    maker = Maker({"bfloat16": 0.01}, {"float32": 0.02, "bfloat16": 0.01})
    model = automatic(maker, around(ZEN, maker))
    assert (model.info.precision, maker.open()) == ("bfloat16", ["bfloat16"])
    assert model.info.precision_reason.startswith("measured: 10 ms for one text")


@pytest.mark.parametrize(("angle", "expected"), [(0.01, "bfloat16"), (0.2, "float32")])
def test_a_cpu_does_not_measure_where_each_load_is_to_choose_alike(angle: float, expected: str) -> None:
    """Slower, by the layer and by the model, and taken; unless it is not close."""
    maker = Maker({"bfloat16": angle}, {"float32": 0.01, "bfloat16": 0.02})
    slow = (Times(2.0, 2.0), Times(1.0, 1.0))
    model = automatic(maker, around(ZEN, maker, timed=False, layer=lambda precision: slow))
    assert (model.info.precision, maker.open()) == (expected, [expected])
    said = "the processor multiplies in it, and deterministic is set" if angle < 0.1 else "has a cosine of"
    assert said in model.info.precision_reason


@pytest.mark.parametrize(
    ("maker", "words"),
    [
        (Maker({}, {"float32": 0.01, "bfloat16": 0.009}), "the model takes"),
        (Maker({"bfloat16": 0.2}, {"float32": 0.02, "bfloat16": 0.01}), "has a cosine of"),
        (Maker({}, problems="bfloat16"), "not finite"),
    ],
)
def test_a_cpu_stays_with_float32(maker: Maker, words: str) -> None:
    """Where bfloat16 is not faster, not close or not to be had; the reason says which."""
    model = automatic(maker, around(ZEN, maker))
    assert (model.info.precision, maker.open()) == ("float32", ["float32"])
    assert words in model.info.precision_reason


def test_a_look_at_one_layer_saves_a_load() -> None:
    """Where the widest layer is no faster in bfloat16, or there is no room, the model is loaded once."""
    slow = (Times(0.002, 0.02), Times(0.001, 0.02))
    for more, words in (({"layer": lambda precision: slow}, "widest layer"), ({"has_room": False}, "no room")):
        maker = Maker({})
        assert words in automatic(maker, around(ZEN, maker, **more)).info.precision_reason
        assert maker.order == ["float32"]
    maker = Maker({})
    assert automatic(maker, around(OLD, maker)).info.precision == "float32"
    assert maker.order == ["float32"]


def test_a_named_precision_is_kept_or_refused() -> None:
    """Never another one: a dtype that is too far from float32 is an error that says what to do."""
    maker = Maker({"float16": 0.01, "bfloat16": 0.2})
    assert named(maker, "float16", around(OLD, maker)).info.precision == "float16"
    with pytest.raises(ModelProblem, match=r"fails its self-test: bfloat16 has a cosine of .* set dtype to Auto"):
        named(maker, "bfloat16", around(HOPPER, maker))
    assert maker.open() == ["float16"]
    assert "cosine 0.9999" in maker.made[1].info.precision_reason
    lonely = named(Maker({}), "float16", around(OLD, maker, has_room=False))
    assert "not compared with float32: there is no room" in lonely.info.precision_reason


@pytest.mark.parametrize("choose", ["named", "automatic"])
def test_the_reference_must_be_met(choose: str) -> None:
    """Float32 rows that are not the reference's: the model fails, with the cosine and the file."""
    maker = Maker({"float32": 0.01})
    given = around(OLD, maker, reference=reference())
    with pytest.raises(ModelProblem, match=r"cosine of 0\.9999.*embedfleet-reference\.json"):
        named(maker, "float32", given) if choose == "named" else automatic(maker, given)
    assert maker.open() == []


def test_a_reference_of_another_task_is_refused() -> None:
    """Rows that cannot be compared are no agreement."""
    maker = Maker({})
    with pytest.raises(ModelProblem, match="is for Rerank, and the model is for Dense"):
        named(maker, "float32", around(OLD, maker, reference=reference(task="Rerank")))


def test_inputs_that_the_model_cuts_are_not_compared() -> None:
    """`maxTokens` of the manifest cuts a known text: its row is another, and says nothing."""
    maker = Maker({})

    def changed(rows: Rows) -> Rows:
        longest = [index for index, text in enumerate(KNOWN) if isinstance(text, str) and len(text.split()) > 16]
        assert longest
        rows[longest] *= -1
        return rows

    assert named(maker, "float32", around(OLD, maker, reference=reference(changed))).info.precision == "float32"


def test_a_real_layer_can_be_timed() -> None:
    """On this machine's CPU, in both precisions."""
    half, exact = layer_times((64, 128), "bfloat16")
    assert min(half.one, half.batch, exact.one, exact.batch) > 0


def test_layers_are_timed_as_they_will_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """In both precisions the packed form is tried beside torch's own, since the model takes the faster one.

    Where the processor multiplies no bfloat16 oneDNN refuses to pack it, after it was asked.
    """
    tried: list[torch.dtype] = []

    class Recorded(PackedLinear):
        def __init__(self, layer: torch.nn.Linear) -> None:
            tried.append(layer.weight.dtype)
            super().__init__(layer)

    monkeypatch.setattr(choosing, "PackedLinear", Recorded)
    choosing.layer_times((32, 64), "bfloat16")
    assert tried == [torch.bfloat16, torch.float32]
