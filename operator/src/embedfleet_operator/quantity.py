"""Kubernetes' quantities: `1000m` and `1`, `1024Mi` and `1Gi` are the same amount.

Canonical form as apimachinery's `resource.Quantity` has it: no fraction, the largest suffix of the same family.
"""

import re
from decimal import Decimal, localcontext
from fractions import Fraction
from math import ceil

_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_FORM = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:(?P<suffix>[numkMGTPE]|[KMGTPE]i)|[eE](?P<exponent>[+-]?[0-9]{1,3}))?"
)


def value(text: str | int) -> Fraction:
    """The amount; `ValueError` when `text` is no quantity."""
    found = _FORM.fullmatch(str(text))
    if found is None:
        raise ValueError(f"{text!r} is no quantity, such as 500m, 2 or 4Gi")
    with localcontext(prec=100):
        number = Fraction(Decimal(found["number"]))
    return number * _scale(found["suffix"] or "", found["exponent"])


def canonical(text: str | int) -> str:
    """The one way to write this amount in its family of suffixes; what is no quantity stays as it is.

    What is finer than a thousandth is rounded up to one, as an API server does with resources.
    """
    try:
        amount = Fraction(ceil(value(text) * 1000), 1000)
    except ValueError:
        return str(text)
    suffix = _FORM.fullmatch(str(text))["suffix"] or ""  # type: ignore[index]  # `value` has matched it
    if suffix in _BINARY and abs(amount) >= 1:  # below one there is no binary suffix
        return _binary(amount)
    return _decimal(amount)


def equal(one: str | int, other: str | int) -> bool:
    """Whether both are the same amount; what is no quantity equals only itself."""
    try:
        return value(one) == value(other)
    except ValueError:
        return str(one) == str(other)


def _scale(suffix: str, exponent: str | None) -> Fraction:
    if exponent is not None:
        return Fraction(10) ** int(exponent)
    if suffix in _BINARY:
        return Fraction(2) ** _BINARY[suffix]
    return Fraction(10) ** _DECIMAL[suffix]


def _binary(amount: Fraction) -> str:
    for suffix, power in reversed(_BINARY.items()):
        if amount and (amount / 2**power).denominator == 1:
            return f"{amount / 2**power}{suffix}"
    return _decimal(amount)


def _decimal(amount: Fraction) -> str:
    for suffix, power in reversed(_DECIMAL.items()):
        scaled = amount / Fraction(10) ** power
        if scaled.denominator == 1 and (amount or not suffix):
            return f"{scaled}{suffix}"
    raise AssertionError(f"This is a bug: {amount} is finer than a thousandth")
