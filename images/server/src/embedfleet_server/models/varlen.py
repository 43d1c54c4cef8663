"""Attention of a GPU over texts that stand in one row of tokens: torch's kernel for texts of unlike lengths.

Registered with transformers. The texts stand one behind the other with nothing between them, and the kernel is told
where each begins. It knows three masks: all of a text sees all of it, each token what is not behind it, and a window.
So a layer's mask, which is a function of the model's own, is asked in the trial at load (see `packing`) and has to be
one of these up to the longest text; what else it may be, such a model is padded.
"""

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, AttentionMaskInterface

from embedfleet_server.models.attention import CHANGING, CannotPack
from embedfleet_server.models.precision import Hardware

NAME = "embedfleet_varlen"
"""The attention's name in a model's configuration."""
_LEAST_CAPABILITY = (8, 0)  # torch's flash attention is built for Ampere and later
_HALF = (torch.float16, torch.bfloat16)
_WIDEST, _STEP = 256, 8  # numbers of a head: its most, and what they must be a multiple of
_ASKED = 128
"""Tokens of the longest text whose view is looked at, beside the first and the last; all of a text with fewer."""
_PLACES = (0, 1000)  # a text's first token in the row, for the asking: what is seen may not depend on it


class Kernel(Protocol):
    """`torch.nn.attention.varlen.varlen_attn` as it is called here (torch 2.11 and later)."""

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cu_seq_q: torch.Tensor,
        cu_seq_k: torch.Tensor,
        max_q: int,
        max_k: int,
        /,
        *,
        scale: float | None,
        window_size: tuple[int, int],
    ) -> torch.Tensor:
        """Shapes (tokens, heads, width) to the same.

        `cu_seq_q`, shape (texts + 1,), int32: where each text begins and the last one ends; `max_q` is the longest's
        length. Token i of a text sees those from i - window_size[0] to i + window_size[1]; -1 is no bound. Keys and
        values may have fewer heads, each for as many of the queries' next to each other.
        """


@dataclass(frozen=True, slots=True)
class Window:
    """How many tokens of its text before it, and behind it, a token sees; -1 is all."""

    before: int = -1
    behind: int = -1


@dataclass(slots=True)
class Asked:
    """In place of a mask for the whole row: the model's own function of places in it."""

    function: Callable[..., Any]
    known: dict[int, Window | None] = field(default_factory=dict)

    def window(self, most: int) -> Window | None:
        """The window that it is in texts of up to `most` tokens; None where it is something else."""
        if most not in self.known:
            found = {_window(self.function, most, first) for first in _PLACES}
            self.known[most] = found.pop() if len(found) == 1 else None
        return self.known[most]


class Layers:
    """What the layers of one model see, as each one's mask says the first time, which is in the trial."""

    def __init__(self, kernel: Kernel, most: int) -> None:
        """`most` is the model's longest text, in tokens."""
        self.kernel, self._most = kernel, most
        self._windows: dict[torch.nn.Module, Window] = {}

    @property
    def widest(self) -> int:
        """The farthest that a layer with a bound sees, in tokens; 0 where no layer has one (causal is none)."""
        return max((0, *(max(each.before, each.behind) for each in self._windows.values())))

    def window(self, layer: torch.nn.Module, mask: Asked) -> Window:
        """What a layer sees; `CannotPack` where the kernel does not know such a mask."""
        if layer not in self._windows:
            self._windows[layer] = _known(mask.window(self._most))
        return self._windows[layer]


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Where the texts of a row begin: `bounds` (texts + 1,), int32, on the device; the longest has `longest` tokens."""

    bounds: torch.Tensor
    longest: int
    tokens: int
    layers: Layers


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    *,
    scaling: float | None = None,
    segments: Texts | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each text of a row, shapes (1, heads, tokens, width) to (1, tokens, heads, width).

    Called by a model's layers; the signature is transformers'. Raises `CannotPack`.
    """
    texts = _checked(query, key, value, attention_mask, segments, more)
    window = texts.layers.window(module, attention_mask)
    query, key, value = (each[0].transpose(0, 1) for each in (query, key, value))
    made = texts.layers.kernel(
        query, key, value, texts.bounds, texts.bounds, texts.longest, texts.longest,
        scale=scaling, window_size=(window.before, window.behind),
    )  # fmt: skip
    return made.unsqueeze(0), None


def kernel(hardware: Hardware, dtype: torch.dtype) -> Kernel:
    """Torch's kernel; `CannotPack` where the device cannot attend so, in such a type, or this torch has none."""
    capability = hardware.capability
    if capability is None or capability < _LEAST_CAPABILITY or dtype not in _HALF:
        least, own = (".".join(map(str, each or ("unknown",))) for each in (_LEAST_CAPABILITY, capability))
        needed = f"packed attention on a GPU needs compute capability {least} and half precision"
        raise CannotPack(f"{needed}; this is {own} and {str(dtype).removeprefix('torch.')}")
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError as error:
        raise CannotPack(f"this torch ({torch.__version__}) has no attention for texts of unlike lengths") from error
    return adapted(varlen_attn)


def only_flash(device: torch.device) -> AbstractContextManager[None]:
    """In it a GPU's kernel is flash attention; on Hopper and Blackwell cuDNN's would be taken first.

    That one makes a plan of its own for every number of texts and every longest length, 42 ms each,
    and keeps them all (pytorch/pytorch, pull requests 191576 and 190388); a server's batches are hardly twice alike.
    """
    if device.type != "cuda":
        return nullcontext()
    made: AbstractContextManager[None] = sdpa_kernel(SDPBackend.FLASH_ATTENTION)
    return made


def adapted(varlen_attn: Callable[..., Any]) -> Kernel:
    """The kernel for keys with fewer heads too: torch 2.11 takes none such, later versions want to be told."""
    takes_groups = "enable_gqa" in inspect.signature(varlen_attn).parameters

    def adapting(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        if (groups := query.shape[1] // key.shape[1]) > 1:
            if takes_groups:
                more["enable_gqa"] = True
            else:
                key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
        made: torch.Tensor = varlen_attn(query, key, value, *rest, **more)
        return made

    return adapting


def _asked(*, mask_function: Callable[..., Any], **_: Any) -> Asked:
    """The signature is transformers'."""
    return Asked(mask_function)


def _checked(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, texts: Texts | None, more: Mapping[str, Any]
) -> Texts:
    if texts is None:
        raise CannotPack("its layers are not told where texts begin and end")
    if changing := [name for name in CHANGING if more.get(name) is not None]:
        raise CannotPack(f"its attention takes {', '.join(changing)}")
    if not isinstance(mask, Asked):
        raise CannotPack("it masks its attention in a way of its own")
    if query.shape[0] != 1 or {query.shape[2], key.shape[2]} != {texts.tokens}:
        raise CannotPack("its attention is not over the tokens of the texts alone")
    widths = sorted({each.shape[3] for each in (query, key, value)})
    if len(widths) > 1 or widths[0] > _WIDEST or widths[0] % _STEP:
        said = " and ".join(map(str, widths))
        raise CannotPack(
            f"its heads have {said} numbers; a GPU's packed attention takes multiples of 8 up to {_WIDEST}"
        )
    return texts


def _known(window: Window | None) -> Window:
    """Those that the kernel is documented to know: all, causal, and bounds on both sides."""
    if window is None:
        raise CannotPack("which tokens see each other in it is neither all, nor causal, nor a window")
    if window.before < 0 < window.behind or window.behind < 0 <= window.before:
        raise CannotPack("its window has a bound on one side only")
    return window


def _window(function: Callable[..., Any], most: int, first: int) -> Window | None:
    """The window that the function is for a text of `most` tokens from the row's place `first` on."""
    tokens = torch.arange(most)
    asked = torch.from_numpy(np.unique(np.linspace(0, most - 1, min(most, _ASKED)).astype(np.int64)))
    zero = torch.tensor(0)  # of the batch and of the heads: all have the same mask
    made = function(zero, zero, first + asked.unsqueeze(1), first + tokens.unsqueeze(0))
    seen = torch.as_tensor(made).expand(len(asked), most)
    if not bool(seen.any(dim=1).all()):
        return None
    apart = tokens.unsqueeze(0) - asked.unsqueeze(1)
    before, behind = (int(far.masked_fill(~seen, 0).max()) for far in (-apart, apart))
    if not torch.equal(seen, (apart >= -before) & (apart <= behind)):
        return None
    return Window(*(-1 if far >= most - 1 else far for far in (before, behind)))


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, _asked)
