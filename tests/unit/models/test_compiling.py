"""Which forms are made for small batches, kept and named; with makers that compile nothing."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from embedfleet_server.models.compiled import Asked, Compiled, finish, unfit
from embedfleet_server.models.compiling import BUCKETS, Bucket, Form, Limit, Outcome, Trial, compiled, fitting
from tests.support.fake_model import INFO, FakeModel

pytestmark = pytest.mark.requirement("S2")
FEW = (Bucket(1, 4), Bucket(1, 8), Bucket(2, 8))
ONE, TWO, FOUR = FEW
WIDTH = 3


def plain(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Vectors that depend on the id alone."""
    return torch.stack([ids.sin(), ids.cos(), mask.float() * 0 + 0.5], dim=-1)


def same(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return plain(ids, mask)


@dataclass
class Fake:
    """A maker whose forms are `form`, after `before` was called with the bucket."""

    form: Form = same
    name: str = "fake"
    before: Callable[[Bucket], None] = lambda bucket: None
    asked: list[Bucket] = field(default_factory=list)

    def __call__(self, plain: Form, bucket: Bucket, inputs: tuple[torch.Tensor, torch.Tensor]) -> Form:
        self.asked.append(bucket)
        self.before(bucket)
        return self.form


@dataclass
class Wall:
    """A clock that is told the time."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def sample(bucket: Bucket) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.arange(1, 1 + bucket.texts * bucket.tokens).reshape(bucket.texts, bucket.tokens)
    return ids, torch.ones_like(ids)


def trial(wall: Wall | None = None, seconds: float = 60.0, ratio: float = 0.5) -> Trial:
    """A form takes `ratio` of the time of what there was."""

    def times(work: Sequence[Callable[[], object]], tries: int, clock: Callable[[], float]) -> list[float]:
        return [ratio, 1.0]

    return Trial(FEW, sample, Limit(seconds, wall or Wall()), times=times)


def test_a_form_that_is_right_and_faster_is_kept() -> None:
    """Each bucket has its maker's name, and there is nothing to explain."""
    made = compiled(plain, [Fake()], trial())
    assert made.shown() == {"1x4": "fake", "1x8": "fake", "2x8": "fake"}
    assert made.reason() == ""
    assert set(made.forms) == set(FEW)


def test_a_form_that_is_no_faster_is_not() -> None:
    """By the clock of the trial: less gain than 5 % could be noise."""
    made = compiled(plain, [Fake()], trial(ratio=0.96))
    assert (made.forms, made.shown()) == ({}, {})
    assert made.reason() == "no fake of 1x4, 1x8, 2x8: it is no faster"


def test_a_form_that_gives_something_else_is_not() -> None:
    """Its cosine is named, and so is a wrong shape."""
    turned = compiled(plain, [Fake(lambda ids, mask: plain(ids, mask).flip(-1))], trial())
    assert not turned.forms
    assert "to the eager form in the trial" in turned.reason()
    short = compiled(plain, [Fake(lambda ids, mask: plain(ids, mask)[:, 1:])], trial())
    assert "no fake of 1x4: it gives an array of (1, 3, 3) for (1, 4, 3)" in short.reason()


def test_padding_may_differ() -> None:
    """What stands where a text has no token is compared with nothing."""

    def masked(bucket: Bucket) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = sample(bucket)
        mask[:, -1] = 0
        return ids, mask

    def other(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return torch.where(mask.bool().unsqueeze(-1), plain(ids, mask), torch.nan)

    tried = trial()
    assert len(compiled(plain, [Fake(other)], Trial(FEW, masked, tried.limit, times=tried.times)).forms) == len(FEW)


def test_what_cannot_be_made_is_named() -> None:
    """With the first line of what the compiler said; the other buckets have their forms."""

    def fails(bucket: Bucket) -> None:
        if bucket == TWO:
            raise RuntimeError("graph break\nand pages of it")

    made = compiled(plain, [Fake(before=fails)], trial())
    assert made.shown() == {"1x4": "fake", "2x8": "fake"}
    assert made.reason() == "no fake of 1x8: RuntimeError: graph break"


def test_the_error_within_is_named() -> None:
    """Torch wraps what its compiler raises, and has that on a later line."""

    def fails(bucket: Bucket) -> None:
        error = RuntimeError("backend='<object at 0x7f>' raised:\nAssertionError: no weight")
        error.inner_exception = AssertionError("no weight")  # type: ignore[attr-defined]  # as BackendCompilerFailed
        raise error

    assert "1x4, 1x8, 2x8: AssertionError: no weight" in compiled(plain, [Fake(before=fails)], trial()).reason()


def test_the_time_limit_leaves_the_rest_eager() -> None:
    """Nothing is begun that would end too late if it took as long as the longest so far."""
    wall = Wall()

    def takes(bucket: Bucket) -> None:
        wall.now += 40

    maker = Fake(before=takes)
    made = compiled(plain, [maker], trial(wall, seconds=100))
    assert maker.asked == [ONE, TWO]  # the third would end at 120
    assert made.shown() == {"1x4": "fake", "1x8": "fake"}
    assert made.reason() == "no fake of 2x8: the time limit of 100 s was reached"


def test_a_maker_that_hangs_is_not_waited_for() -> None:
    """Beyond twice the limit; what it makes then is dropped."""
    go_on, is_over = threading.Event(), threading.Event()

    def hangs(bucket: Bucket) -> None:
        if bucket == TWO:
            go_on.wait(60)
        if bucket == FOUR:
            is_over.set()

    made = compiled(plain, [Fake(before=hangs)], trial(seconds=0.05))
    assert made.shown() == {"1x4": "fake"}
    assert made.reason() == "no fake of 1x8, 2x8: the time limit of 0.05 s was reached"
    go_on.set()
    assert is_over.wait(60)
    assert set(made.forms) == {ONE}


def test_of_two_makers_the_faster_form_serves() -> None:
    """A later maker's form is compared with the earlier one's, and replaces it where it is faster."""
    taken = {"eager": 1.0, "cheap": 0.8, "dear": 0.7}
    called: list[str] = []

    def named(name: str) -> Form:
        def form(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            called.append(name)
            return plain(ids, mask)

        return form

    def times(work: Sequence[Callable[[], object]], tries: int, clock: Callable[[], float]) -> list[float]:
        called.clear()
        for each in work:
            each()
        return [taken[name] for name in called]

    makers = [Fake(named(name), name) for name in ("cheap", "dear")]
    tried = Trial(FEW, sample, Limit(60, Wall()), times=times)
    assert set(compiled(named("eager"), makers, tried).shown().values()) == {"dear"}
    taken["dear"] = 0.79  # of the cheap form's time that is too much, and of the eager one's it would do
    both = compiled(named("eager"), makers, tried)
    assert set(both.shown().values()) == {"cheap"}
    assert both.reason() == "no dear of 1x4, 1x8, 2x8: it is no faster"


@pytest.mark.parametrize(
    ("texts", "tokens", "expected"),
    [
        (1, 1, "1x16"),
        (1, 16, "1x16"),
        (1, 17, "1x32"),
        (3, 40, "4x64"),
        (8, 128, "8x128"),
        (9, 16, None),
        (1, 129, None),
    ],
)
def test_the_bucket_of_a_shape(texts: int, tokens: int, expected: str | None) -> None:
    """The smallest that has room; what no bucket has room for has none."""
    found = fitting(texts, tokens, BUCKETS)
    assert (None if found is None else str(found)) == expected


def served(*buckets: Bucket, form: Form = same) -> Compiled:
    """Forms of some of the buckets that were tried."""
    forms = dict.fromkeys(buckets, form)
    refused = {(bucket, "fake"): "it is no faster" for bucket in FEW if bucket not in buckets}
    return Compiled(Outcome(forms, dict.fromkeys(buckets, "fake"), refused), FEW, padding=0)


def test_a_batch_is_filled_up_to_its_bucket_and_cut_again() -> None:
    """The form sees the bucket's shape alone; texts that are not there attend to something."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def form(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen.append((ids, mask))
        return plain(ids, mask)

    ids, mask = torch.tensor([[5, 6, 7, 8, 9]]), torch.tensor([[1, 1, 1, 1, 0]])
    made = served(*FEW, form=form)(FOUR, ids, mask)
    assert made is not None
    assert torch.equal(made, plain(ids, mask))
    assert seen[0][0].tolist() == [[5, 6, 7, 8, 9, 0, 0, 0], [0] * 8]
    assert seen[0][1].tolist() == [[1, 1, 1, 1, 0, 0, 0, 0], [1] * 8]


def test_a_larger_bucket_does_not_serve_for_one_without_a_form() -> None:
    """One text of four tokens is computed eagerly rather than as two of eight."""
    some = served(FOUR)
    assert some.bucket(1, 4) is None
    assert some.bucket(2, 5) == FOUR
    assert some.bucket(3, 5) is None


def test_a_form_that_fails_in_service_is_dropped_and_named() -> None:
    """Its shape runs eagerly from then on; the others keep theirs."""

    def fails(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("an illegal access\nwas encountered")

    told: list[str] = []
    forms = served(ONE, TWO, form=fails)
    forms.told = lambda: told.append(forms.into(INFO).compiled_reason)
    ids, mask = sample(ONE)
    assert forms(ONE, ids, mask) is None
    assert told == ["no fake of 2x8: it is no faster; 1x4 was dropped: RuntimeError: an illegal access"]
    assert forms.bucket(1, 4) is None
    assert forms.bucket(1, 8) == TWO
    assert forms.into(INFO).compiled == {"1x8": "fake"}


GPU: dict[str, Any] = {"device": "cuda:0"}


@pytest.mark.parametrize(
    ("changes", "asked", "words"),
    [
        ({}, Asked(60), "on a CPU"),
        (GPU, Asked(0), "time limit is 0 s"),
        (GPU, Asked(60, is_lazy=True), "requests would wait"),
        ({**GPU, "task": "Rerank"}, Asked(60), "compiled are Dense models, and this one is Rerank"),
    ],
)
def test_what_is_not_compiled_says_why(changes: dict[str, Any], asked: Asked, words: str) -> None:
    """In its `info`, which `/state` and `/v1/models` show."""
    model = finish(FakeModel(**changes), asked)
    assert words in model.info.compiled_reason
    assert model.info.compiled == {}


class Compiling(FakeModel):
    """A model that has forms made, or fails at it."""

    error: Exception | None = None
    seconds = 0.0

    def compile(self, seconds: float) -> None:
        self.seconds = seconds
        if self.error is not None:
            raise self.error
        self.info = served(ONE).into(self.info)


def test_what_is_compiled_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """In its `info` and in one line of the log."""
    assert unfit(FakeModel(**GPU).info, Asked(60)) is None
    model = Compiling(**GPU)
    with caplog.at_level("INFO"):
        finish(model, Asked(60))
    assert (model.seconds, model.info.compiled) == (60, {"1x4": "fake"})
    assert caplog.messages == ["model semantic: compiled for 1x4 (fake); no fake of 1x8, 2x8: it is no faster"]


def test_a_model_serves_though_nothing_can_be_compiled() -> None:
    """Such as where torch finds no compiler."""
    model = Compiling(**GPU)
    model.error = ImportError("no module named triton")
    finish(model, Asked(60))
    assert model.info.compiled == {}
    assert model.info.compiled_reason == "nothing could be compiled: ImportError: no module named triton"
