"""Quantised vectors equal those of sentence-transformers' `quantize_embeddings`."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sentence_transformers.util.quantization import quantize_embeddings

from embedfleet_server.engine.quantizing import Precision, check_ranges, quantized, ranges_of

pytestmark = pytest.mark.requirement("S2")
_RANDOM = np.random.default_rng(5)
VECTORS = _RANDOM.standard_normal((150, 37)).astype(np.float32)
OTHERS = _RANDOM.standard_normal((120, 37)).astype(np.float32)
WHOLE: list[Precision] = ["int8", "uint8", "binary", "ubinary"]


@pytest.mark.parametrize("precision", WHOLE)
def test_parity(precision: Precision) -> None:
    """The same bytes; ranges computed from the vectors, d no multiple of 8, one dimension the same in all."""
    vectors = VECTORS.copy()
    vectors[:, 3] = 0.25
    wanted = quantize_embeddings(vectors, precision)  # type: ignore[arg-type]
    made = quantized(vectors, precision)
    assert isinstance(wanted, np.ndarray)
    assert made.dtype == wanted.dtype
    assert np.array_equal(made, wanted)


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_parity_with_calibration(precision: Precision) -> None:
    """Ranges of other vectors, given or computed; what lies beyond them gets the nearest step."""
    ranges = ranges_of(OTHERS)
    wanted = quantize_embeddings(VECTORS, precision, calibration_embeddings=OTHERS)  # type: ignore[arg-type]
    assert np.array_equal(quantized(VECTORS, precision, ranges), wanted)
    assert np.array_equal(quantize_embeddings(VECTORS, precision, ranges=ranges), wanted)  # type: ignore[arg-type]
    assert not np.array_equal(quantized(VECTORS, precision), wanted)


@pytest.mark.parametrize("precision", ["float16", *WHOLE])
def test_no_vectors_give_none(precision: Precision) -> None:
    """Shape and type stay."""
    made = quantized(VECTORS[:0], precision)
    assert made.shape == (0, 5 if "binary" in precision else 37)
    assert made.dtype == quantized(VECTORS, precision).dtype


def test_float16_keeps_what_it_can() -> None:
    """Rounded to the nearest; too large becomes the largest; NaN stays."""
    made = quantized(np.array([[1e9, -1e9, 0.1, np.nan]], np.float32), "float16")
    assert made.dtype == np.float16
    assert made[0, :3].tolist() == [65504.0, -65504.0, float(np.float16(0.1))]
    assert np.isnan(made[0, 3])


@pytest.mark.parametrize("precision", WHOLE)
def test_a_vector_that_never_came_is_zero(precision: Precision) -> None:
    """Beside it the others are as without it."""
    vectors = VECTORS.copy()
    vectors[7] = np.nan
    made = quantized(vectors, precision)
    assert not made[7].any()
    assert np.array_equal(np.delete(made, 7, axis=0), quantized(np.delete(vectors, 7, axis=0), precision))


def test_ranges_need_two_vectors() -> None:
    """As in sentence-transformers, nobody guesses from one."""
    nan = np.full((1, 37), np.nan, np.float32)
    for vectors in (VECTORS[:1], np.concatenate([VECTORS[:1], nan])):
        with pytest.raises(ValueError, match=r"at least 2 finite vectors .* there are 1"):
            quantized(vectors, "int8")
    assert quantized(VECTORS[:1], "int8", ranges_of(OTHERS)).shape == (1, 37)


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        (np.zeros((3, 2), np.float32), "shape \\(3, 2\\); they must have \\(2, 2\\)"),
        (np.array([[0, np.nan], [1, 1]], np.float32), "not finite"),
        (np.array([[0, 2], [1, 1]], np.float32), "dimension 1 go from 2.0 down to 1.0"),
    ],
)
def test_wrong_ranges_are_named(ranges: NDArray[np.float32], said: str) -> None:
    """A range is two numbers a dimension, the lower first."""
    with pytest.raises(ValueError, match=said):
        check_ranges(ranges, 2)
