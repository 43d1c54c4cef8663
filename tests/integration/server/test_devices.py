"""Several devices behind HTTP: a real model loaded twice, and what the server tells of its devices."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from embedfleet.api.models import ModelSpec
from embedfleet_server.engine.protocols import Loader
from embedfleet_server.models.loading import loader
from tests.support.served import Reply, Served, run, serving
from tests.support.texts import mixed_texts
from tools import weights

TWO = ("cpu", "cpu:0")
"""The processor by two of torch's names, as if it were two devices."""
TEXTS = mixed_texts(60)


def twice(store: Path) -> Loader:
    source = {"huggingFace": {"repo": weights.REPOSITORY}}
    spec = ModelSpec.model_validate({"name": "semantic", "source": source, "dtype": "Float32"})
    return loader(spec, store=store, offline=True, gpu_count=2, devices=lambda count: TWO[:count])


async def asked(served: Served) -> list[Reply]:
    """Each text in a request of its own, all at once."""
    return await asyncio.gather(*(served.embed(one) for one in TEXTS))


def busy(metrics: bytes) -> dict[str, float]:
    """Seconds by device, of Prometheus' text."""
    begin = "embedfleet_device_busy_seconds_total"
    lines = [line for line in metrics.decode().splitlines() if line.startswith(begin)]
    return {line.partition('"')[2].partition('"')[0]: float(line.split()[1]) for line in lines}


@pytest.mark.requirement("B6", "S2")
def test_two_copies_of_a_real_model_answer_as_one(tmp_path: Path) -> None:
    """Both compute, the vectors are sentence-transformers', and `/v1/models`, `/state` and `/metrics` name both."""
    model: Any = SentenceTransformer(str(weights.fill(tmp_path)), device="cpu")
    expected = model.encode(TEXTS, normalize_embeddings=True)

    async def main() -> None:
        async with serving({"semantic": twice(tmp_path)}, max_batch_size=4) as served:
            replies = await asked(served)
            rows = np.array([reply.json["data"][0]["embedding"] for reply in replies], np.float32)
            np.testing.assert_allclose((rows * expected).sum(axis=1), 1.0, atol=1e-5)
            assert len({reply.headers["X-Embedfleet-Fingerprint"] for reply in replies}) == 1
            (listed,) = (await served.ask("GET", "/v1/models")).json["data"]
            state = (await served.observe("/state")).json
            for told in (listed["embedfleet"], state["models"][0]):
                assert (told["device"], told["devices"]) == ("cpu", list(TWO))
            assert [figures["batches"] for figures in state["devices"].values()] == [0, 0]
            seconds = busy((await served.observe("/metrics")).body)
            assert set(seconds) == set(TWO)
            assert min(seconds.values()) > 0

    run(main())
