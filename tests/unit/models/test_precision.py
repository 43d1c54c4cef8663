"""Which precision Auto takes: the decision alone, by what was measured."""

import math

import pytest

from embedfleet_server.models.precision import Hardware, Times, apart, candidates, exact, half, named, slow

pytestmark = pytest.mark.requirement("S5")
EXACT = Times(one=0.010, batch=0.100)


@pytest.mark.parametrize(
    ("hardware", "expected"),
    [
        (Hardware(), ()),
        (Hardware(flags=frozenset({"avx512f", "avx512_vnni"})), ()),
        (Hardware(flags=frozenset({"avx512_bf16"})), ("bfloat16",)),
        (Hardware(flags=frozenset({"amx_bf16", "amx_tile"})), ("bfloat16",)),
        (Hardware(flags=frozenset({"asimd", "bf16"})), ("bfloat16",)),
        (Hardware(capability=(5, 2)), ()),
        (Hardware(capability=(6, 0)), ("float16",)),
        (Hardware(capability=(6, 1)), ()),
        (Hardware(capability=(7, 0)), ("float16",)),
        (Hardware(capability=(7, 5)), ("float16",)),
        (Hardware(capability=(8, 0)), ("bfloat16", "float16")),
        (Hardware(capability=(9, 0)), ("bfloat16", "float16")),
        (Hardware(capability=(12, 1)), ("bfloat16", "float16")),
    ],
)
def test_what_is_tried_follows_the_hardware(hardware: Hardware, expected: tuple[str, ...]) -> None:
    """What a device does not multiply in is not even tried; cards before Ampere have float16 alone."""
    assert candidates(hardware) == expected


@pytest.mark.parametrize(
    ("times", "taken"),
    [
        (Times(0.005, 0.040), True),
        (Times(0.010, 0.080), True),
        (Times(0.010, 0.081), False),  # too little gain to be more than noise
        (Times(0.0109, 0.040), True),  # as long, but for noise
        (Times(0.012, 0.040), False),  # one text alone would wait longer
        (Times(0.005, 0.200), False),
    ],
)
def test_half_precision_must_be_clearly_faster(times: Times, taken: bool) -> None:
    """A batch in at most 0.8 of float32's time, and one text in about float32's at most; else the reason has both."""
    why = slow("bfloat16", times, EXACT, "the model")
    assert (why is None) == taken
    assert why is None or ("10 ms for one text" in why and "100 ms for a batch" in why)


@pytest.mark.parametrize(
    ("precision", "cosine", "taken"),
    [
        ("bfloat16", 0.999, True),
        ("bfloat16", 0.99899, False),
        ("float16", 0.9995, True),
        ("float16", math.nan, False),
        ("bfloat16", -1.0, False),
        ("float32", 0.99999, True),
        ("float32", 0.99998, False),
    ],
)
def test_it_must_be_close_to_float32(precision: str, cosine: float, taken: bool) -> None:
    """0.999 for half precision, 0.99999 for float32 itself; a row that is not finite is close to nothing."""
    why = apart(precision, cosine)
    assert (why is None) == taken
    assert why is None or "is the least" in why


def test_a_choice_says_why() -> None:
    """With the measured times and the cosine; and where nothing could be compared, that."""
    assert half("bfloat16", 0.99996, (Times(0.004, 0.02), EXACT)).reason == (
        "measured: 4 ms for one text, 20 ms for a batch; in float32 10 ms for one text, 100 ms for a batch; "
        "cosine 0.999960 to float32"
    )
    assert "no room" in half("bfloat16", None).reason
    assert exact({}).reason == "the device multiplies in no smaller precision"
    assert exact({"bfloat16": "too slow", "float16": "too far"}).reason == "too slow; too far"


@pytest.mark.parametrize(
    ("hardware", "precision", "warned"),
    [
        (Hardware(flags=frozenset({"avx2"})), "bfloat16", True),
        (Hardware(flags=frozenset({"avx512_bf16"})), "bfloat16", False),
        (Hardware(flags=frozenset({"avx512_bf16"})), "float16", True),
        (Hardware(capability=(7, 5)), "bfloat16", True),
        (Hardware(capability=(9, 0)), "float16", False),
        (Hardware(flags=frozenset({"avx2"})), "float32", False),
    ],
)
def test_a_named_precision_that_the_device_is_slow_in_is_kept_and_told(
    hardware: Hardware, precision: str, warned: bool
) -> None:
    """As the manifest asked; the reason says what to expect."""
    choice = named(precision, 0.9999, hardware)
    assert choice.precision == precision
    assert ("expect Float32 to be faster" in choice.reason) is warned
