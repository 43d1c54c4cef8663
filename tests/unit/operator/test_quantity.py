"""Quantities: one amount, one way to write it."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet_operator import quantity

SUFFIXES = ["m", "", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "e3", "E-2"]


@pytest.mark.parametrize(
    ("given_", "written"),
    [
        ("1000m", "1"),
        ("0.5", "500m"),
        (2, "2"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("1000Mi", "1000Mi"),
        ("2048Ki", "2Mi"),
        ("1000k", "1M"),
        ("0", "0"),
        ("0Gi", "0"),
        ("0.5Ki", "512"),
        ("100Mi", "100Mi"),
        ("8.0", "8"),
        ("100n", "1m"),
        ("1.0005Gi", "1074278694912m"),
        ("what", "what"),
    ],
)
def test_an_amount_has_one_way_to_be_written(given_: str | int, written: str) -> None:
    """The canonical form is the one an API server writes (each line was compared with one)."""
    assert quantity.canonical(given_) == written


@given(number=st.integers(0, 10**9), suffix=st.sampled_from(SUFFIXES))
def test_the_canonical_form_is_the_same_amount(number: int, suffix: str) -> None:
    """Writing it canonically changes no amount, and doing so again changes nothing."""
    text = f"{number}{suffix}"
    assert quantity.equal(quantity.canonical(text), text)
    assert quantity.canonical(quantity.canonical(text)) == quantity.canonical(text)


def test_values_are_exact() -> None:
    """No amount passes through a float."""
    assert quantity.value("0.1") == Fraction(1, 10)
    assert quantity.value("1Ki") == 1024
    assert not quantity.equal("1Gi", "1G")
    with pytest.raises(ValueError, match="'1 Gi' is no quantity"):
        quantity.value("1 Gi")
