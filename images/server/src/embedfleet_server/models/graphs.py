"""Forms as CUDA graphs: all of a small batch's kernels are launched by one call, whatever Python does between them."""

import torch

from embedfleet_server.models.compiling import Bucket, Form, Maker

_WARM = 3  # calls before a capture, in which libraries choose their kernels and get their workspaces


class Captured:
    """Makes CUDA graphs of the transformer itself, or of another maker's forms."""

    def __init__(self, device: torch.device, inner: Maker | None = None) -> None:
        """`device` is a GPU's; the graphs of one maker share their memory, since one runs at a time."""
        self._device, self._inner = device, inner
        self.name = "CUDA graph" if inner is None else f"CUDA graph of {inner.name}"
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, plain: Form, bucket: Bucket, inputs: tuple[torch.Tensor, torch.Tensor]) -> Form:
        """The form of a bucket; raises what CUDA raises where something in it cannot be captured."""
        form = plain if self._inner is None else self._inner(plain, bucket, inputs)
        ids, mask = (each.clone() for each in inputs)
        with torch.cuda.device(self._device):
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # as torch has it
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM):
                    form(ids, mask)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # By thread: another model may be at work on this GPU while this one is loaded.
            with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
                made = form(ids, mask)
        return _Replayed(graph, ids, mask, made)


class _Replayed:
    """A graph with the memory it reads from and writes to."""

    def __init__(self, graph: torch.cuda.CUDAGraph, ids: torch.Tensor, mask: torch.Tensor, made: torch.Tensor) -> None:
        self._graph, self._ids, self._mask, self._made = graph, ids, mask, made

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """A copy of what the graph makes, since the next call writes over it."""
        self._ids.copy_(ids)
        self._mask.copy_(mask)
        self._graph.replay()
        return self._made.clone()
