"""Which precision `dtype: Auto` takes: from what the hardware can do and what was measured. Pure.

Half a float32 halves memory traffic and, where a device multiplies in it, takes a fraction of the time. On a GPU that
is known by its generation; on a CPU it depends on the model's size too, so that there speed is measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from embedfleet_server.models.self_test import LEAST, is_close, shown

FLOAT32, BFLOAT16, FLOAT16 = "float32", "bfloat16", "float16"
_CPU_BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
"""As /proc/cpuinfo names instructions that multiply bfloat16: Intel's, AMD's and Intel's, Arm's."""
_SM_BFLOAT16 = (8, 0)  # Ampere: tensor cores for bfloat16
_SM_FLOAT16 = (7, 0)  # Volta: tensor cores for float16
_SM_PASCAL = (6, 0)  # P100: twice the rate in float16; the other Pascals (6.1) have a 64th of it
_GAIN = 0.8  # of float32's time for a batch: less could be noise, and replicas on like machines are to choose alike
SLOWER = "is not the faster one here"
"""In the reason for float32, where a clock decided."""
_NO_SLOWER = 1.1  # of float32's time for one text: on a busy machine like speeds differ by less


@dataclass(frozen=True, slots=True)
class Hardware:
    """What is known of a device. `flags` are a CPU's, `capability` is a CUDA device's."""

    flags: frozenset[str] = frozenset()
    capability: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds for one short text, and for a batch."""

    one: float
    batch: float

    def __str__(self) -> str:
        return f"{self.one * 1000:.3g} ms for one text, {self.batch * 1000:.3g} ms for a batch"


@dataclass(frozen=True, slots=True)
class Choice:
    """A precision, and why it is the one."""

    precision: str
    reason: str


def candidates(hardware: Hardware) -> tuple[str, ...]:
    """The half precisions that the device multiplies in, best first; none where float32 is all there is."""
    capability = hardware.capability
    if capability is None:
        return (BFLOAT16,) if hardware.flags & _CPU_BFLOAT16 else ()
    if capability >= _SM_BFLOAT16:
        return BFLOAT16, FLOAT16  # the second where bfloat16's 8 bits are too few
    return (FLOAT16,) if capability >= _SM_FLOAT16 or capability == _SM_PASCAL else ()


def slow(precision: str, half: Times, exact: Times, what: str) -> str | None:
    """Why half precision is not worth it; None where a batch is clearly faster and one text is not slower.

    `what` was measured: the model, or its widest layer.
    """
    if half.batch <= _GAIN * exact.batch and half.one <= _NO_SLOWER * exact.one:
        return None
    return f"{precision} {SLOWER}: {what} takes {half}; in float32 {exact}"


def apart(precision: str, cosine: float) -> str | None:
    """Why half precision is not close enough to float32; None where it is."""
    if is_close(cosine, precision):
        return None
    return (
        f"{precision} has a cosine of {shown(cosine)} to float32 in the self-test, and {LEAST[precision]} is the least"
    )


def half(precision: str, cosine: float | None, times: tuple[Times, Times] | None = None) -> Choice:
    """The choice of a half precision: with its cosine to float32, where that could be told, and the measured times."""
    faster = "the fastest of this GPU" if times is None else f"measured: {times[0]}; in float32 {times[1]}"
    return Choice(precision, f"{faster}; {compared(cosine)}")


def ruled(precision: str, cosine: float | None) -> Choice:
    """The choice of a half precision without a measurement, which may say otherwise at each load."""
    return Choice(precision, f"the processor multiplies in it, and deterministic is set; {compared(cosine)}")


def named(precision: str, cosine: float | None, hardware: Hardware) -> Choice:
    """The choice that the manifest makes; says so where it is one that the device is slow in."""
    said = "named by dtype"
    if precision == FLOAT32:
        return Choice(precision, said)
    if precision not in candidates(hardware):
        said = f"{said}, though this device does not multiply in it: expect Float32 to be faster"
    return Choice(precision, f"{said}; {compared(cosine)}")


def compared(cosine: float | None) -> str:
    """The cosine to float32 in words."""
    if cosine is None:
        return "not compared with float32: there is no room for both, or maxTokens cuts every known text"
    return f"cosine {shown(cosine)} to float32"


def exact(refused: Mapping[str, str]) -> Choice:
    """Float32, since the others were refused, each for its reason."""
    if not refused:
        return Choice(FLOAT32, "the device multiplies in no smaller precision")
    return Choice(FLOAT32, "; ".join(refused.values()))
