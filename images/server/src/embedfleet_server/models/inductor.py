"""Forms made by torch.compile's inductor: one graph for a shape, without a break, and never another one in service.

What it makes is kept in the directory TORCHINDUCTOR_CACHE_DIR, by the graph, the versions and the hardware, so that a
second start on the same disk finds it there.
"""

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch

from embedfleet_server.models.compiling import Bucket, Form


class Recompiled(Exception):
    """Torch asks for a form anew, while requests are served."""


class Inductor:
    """Makes forms by compiling."""

    name = "inductor"

    def __call__(self, plain: Form, bucket: Bucket, inputs: tuple[torch.Tensor, torch.Tensor]) -> Form:
        """The form of a bucket; raises what torch raises where the transformer is not one graph."""
        import torch._inductor.config  # takes a second or two, and only where there is something to compile

        backend = _Once()
        made: Form = torch.compile(_alone(plain, bucket), fullgraph=True, dynamic=False, backend=backend)
        # In this process: others for it would each hold torch, in memory that nobody counts. Said here, since what one
        # thread sets of this no other sees.
        with torch._inductor.config.patch(compile_threads=1):
            made(*inputs)
        backend.is_over = True
        return made


class _Once:
    """Inductor, until the form is made: a later graph is refused, which takes no time to speak of."""

    def __init__(self) -> None:
        self.is_over = False

    def __call__(self, graph: torch.fx.GraphModule, inputs: Sequence[Any], **more: Any) -> Callable[..., Any]:
        if self.is_over:
            raise Recompiled(
                "what the form was made for has changed, and nothing is compiled while requests are served"
            )
        inductor: Any = torch._dynamo.lookup_backend("inductor")
        made: Callable[..., Any] = inductor(graph, inputs, **more)
        return made


def _alone(plain: Form, bucket: Bucket) -> Form:
    """`plain` with a code object of its own, by which torch keeps what it compiled; it allows eight forms for each."""

    def call(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return plain(ids, mask)

    code = call.__code__.replace(co_name=f"bucket_{bucket}")
    return FunctionType(code, call.__globals__, code.co_name, None, call.__closure__)
