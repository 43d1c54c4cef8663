"""`batching.deterministic` over HTTP: switched on while the server runs, the same bits under any load from then on."""

import asyncio
import json
import random
from pathlib import Path

import pytest

from embedfleet.api import Batching, BatchingSettings, HuggingFaceSource, ModelSettings, ModelSpec, Source
from embedfleet.api.settings import BATCHING_FILE, MODELS_FILE, to_json
from embedfleet_server.app.tuning import Tuning
from tests.support.loading import load
from tests.support.served import Served, run, serving
from tests.support.texts import mixed_texts
from tools.weights import packaged_model

TEXTS = mixed_texts(24, mu=2.2)


def write(directory: Path, generation: int, *, deterministic: bool) -> None:
    """The two files, as a kubelet leaves them; with memory for vectors."""
    model = ModelSpec(name="semantic", source=Source(hugging_face=HuggingFaceSource(repo="a/b")))
    directory.joinpath(MODELS_FILE).write_text(to_json(ModelSettings(service="fleet", models=[model])))
    batching = Batching(deterministic=deterministic, vector_cache_mib=1, sort_by_length=False)
    directory.joinpath(BATCHING_FILE).write_text(to_json(BatchingSettings(generation=generation, batching=batching)))


async def bits(served: Served, texts: list[str]) -> list[str]:
    reply = await served.embed(texts, encoding_format="base64")
    assert reply.status == 200, reply.body
    return [one["embedding"] for one in reply.json["data"]]


async def under_load(served: Served, seed: int) -> dict[str, set[str]]:
    """What each text's vectors were, in requests of 1 to 12 texts that come together."""
    draw = random.Random(seed)
    requests = [draw.sample(TEXTS, draw.randint(1, 12)) for _ in range(8)] + [[text] for text in TEXTS]
    found: dict[str, set[str]] = {text: set() for text in TEXTS}
    answers = await asyncio.gather(*(bits(served, texts) for texts in requests))
    for texts, made in zip(requests, answers, strict=True):
        for text, one in zip(texts, made, strict=True):
            found[text].add(one)
    return found


@pytest.mark.requirement("B20", "S2")
def test_a_live_change_gives_the_same_bits_under_mixed_load(tmp_path: Path) -> None:
    """Not what the cache kept from before; `/v1/models` and `/state` say that it is on, and how."""

    async def told(served: Served) -> tuple[bool, str | None]:
        listed = (await served.ask("GET", "/v1/models")).json["data"][0]["embedfleet"]
        (state,) = json.loads((await served.observe("/state")).body)["models"]
        assert (state["deterministic"], state["deterministic_reason"]) == (
            listed["deterministic"],
            listed["deterministic_reason"],
        )
        return listed["deterministic"], listed["deterministic_reason"]

    async def main() -> None:
        loader = lambda: load(packaged_model(), store=tmp_path / "store")  # noqa: E731  # a loader takes nothing
        async with serving({"semantic": loader}, vector_cache_mib=1) as served:
            tuning = Tuning(served.engine, tmp_path)
            assert await told(served) == (False, None)
            before = await under_load(served, 0)
            write(tmp_path, 2, deterministic=True)
            tuning.look()
            on = [await under_load(served, seed) for seed in (1, 2)]
            assert (await told(served))[0]
            served.engine._sharing.cache.resize(0)
            alone = {text: set(await bits(served, [text])) for text in TEXTS}
            assert on == [alone, alone]
            assert before != alone
            write(tmp_path, 3, deterministic=False)
            tuning.look()
            assert await told(served) == (False, None)

    run(main())
