"""A program that uses the whole client, with the types that mypy must find; `make check` runs mypy over it."""

from pathlib import Path
from typing import assert_type

import numpy as np
from numpy.typing import NDArray

import embedfleet as sdk
from embedfleet.shards import Written
from embedfleet.tasks import Ranked, SparseRows, Token, TokenRows
from embedfleet.wire import ModelCard

Array = NDArray[np.float32]


def sample(url: str, folder: Path) -> None:
    """Each call once."""
    with sdk.Service(url, model="semantic") as service:
        assert_type(service.embed("a"), Array)
        assert_type(service.embed(["a"], on_error="nan"), Array)
        assert_type(service.embed(["a"], with_info=True), sdk.EmbedResult)
        assert_type(service.embed(["a"], on_error="collect"), sdk.EmbedResult)
        assert_type(service.embed(["a"], with_info=True).array, Array)
        assert_type(service.embed_query("a"), Array)
        assert_type(list(service.embed_stream(iter(["a"]))), list[Array])
        assert_type(service.embed_to(folder / "v", ["a"], cache=sdk.Cache(folder / "c")), Written)
        assert_type(sdk.load(folder / "v"), Array)
        assert_type(service.rerank("a", ["b"], model="rerank"), list[Ranked])
        assert_type(service.embed_sparse(["a"], model="sparse"), SparseRows)
        assert_type(service.embed_multi(["a"], model="late"), TokenRows)
        assert_type(service.similarity("a", ["b"]), Array)
        assert_type(service.tokenize(["a"]), list[list[Token]])
        assert_type(service.model_info(), ModelCard)


async def async_sample(url: str) -> None:
    """The twins, where their types could differ."""
    async with sdk.AsyncService(url) as service:
        assert_type(await service.embed("a"), Array)
        assert_type(await service.embed(["a"], with_info=True), sdk.EmbedResult)
        assert_type(await service.embed(["a"], on_error="collect"), sdk.EmbedResult)
        assert_type([rows async for rows in service.embed_stream(["a"])], list[Array])
        assert_type(await service.rerank("a", ["b"]), list[Ranked])
