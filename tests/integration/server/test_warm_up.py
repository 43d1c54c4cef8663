"""What models are measured for before they are ready, as the server shows it: real models, and fakes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from embedfleet_server.batching.pressure import Reading
from embedfleet_server.engine.protocols import Encoded, Rows
from tests.support.fake_model import FakeModel
from tests.support.process import REAL, Process, process
from tests.support.served import run, serving
from tests.support.tiny_models import make_bert
from tests.support.tiny_tasks import RERANK, SPARSE, make_inference_free, make_multi_vector
from tools import weights

MIB = 1 << 20


def loaded(server: Process) -> dict[str, Any]:
    """`/state` once no model is being loaded any more."""
    server.line("fingerprint")
    state: dict[str, Any] = server.ask("GET", "/state", observe=True)[1]
    return state


def series(metrics: str, name: str) -> dict[str, float]:
    """The values of a metric by its labels."""
    lines = (line.rpartition(" ") for line in metrics.splitlines() if line.startswith(f"{name}{{"))
    return {head.removeprefix(name): float(value) for head, _, value in lines}


@pytest.mark.requirement("S5", "B7", "A3")
def test_a_real_model_is_measured_before_it_is_ready(tmp_path: Path) -> None:
    """all-MiniLM-L6-v2: speeds by length, a start and a budget, all above 0, in `/v1/models`, `/state` and the metrics.

    The speed is believed before anybody asked, and the time it took is what it may take.
    """
    weights.fill(tmp_path / "store")
    models = [{"name": "semantic", "source": {"huggingFace": {"repo": weights.REPOSITORY}}, "dtype": "Float32"}]
    with process(tmp_path, "--store", str(tmp_path / "store"), models=models, module=REAL) as server:
        state = loaded(server)
        shown = state["models"][0]["warm_up"]
        assert shown["reason"]
        speeds = shown["tokens_per_second"]
        assert set(speeds) <= {"16", "64", "256"}
        assert speeds
        figures = [
            *speeds.values(),
            shown["safe_batch_tokens"],
            shown["seconds"],
            state["tokens_per_second"]["semantic"],
        ]
        assert all(math.isfinite(figure) and figure > 0 for figure in figures)
        assert shown["start_milliseconds"] is None or shown["start_milliseconds"] >= 0
        (listed,) = server.ask("GET", "/v1/models")[1]["data"]
        assert listed["embedfleet"]["warm_up"] == shown
        assert state["stats"]["batches"] == 0
        assert server.embed("a text")[0].status == 200
        server.stop()


@pytest.mark.requirement("S3", "S5")
def test_every_task_is_measured(tmp_path: Path) -> None:
    """Tiny models of all tasks, padded and packed: each takes made-up tokens, none fails, all figures are there."""
    makers: dict[str, Any] = {
        "dense": lambda path: make_bert(path, normalize=True),
        "sparse": next(iter(SPARSE.values())),
        "free": make_inference_free,
        "late": make_multi_vector,
        "rerank": RERANK["rerank-bert"],
        "modern": RERANK["rerank-modern-bert"],
    }
    models = [{"name": name, "source": {"path": str(make(tmp_path / name))}} for name, make in makers.items()]
    with process(tmp_path, "--store", str(tmp_path / "store"), "--threads", "1", models=models, module=REAL) as server:
        state = loaded(server)
        shown = {model["name"]: model["warm_up"] for model in state["models"]}
        assert set(shown) == set(makers)
        assert not [found["reason"] for found in shown.values() if "failed" in found["reason"]]
        for found in shown.values():
            assert all(speed > 0 for speed in found["tokens_per_second"].values())
            assert found["tokens_per_second"]
        server.stop()


class Measured(FakeModel):
    """Knows what its forwards take: 1 MiB for each token."""

    tokens = 0.0

    def forward(self, batch: Sequence[Encoded]) -> Rows:
        self.tokens = float(sum(len(one.token_ids) for one in batch))
        return super().forward(batch)

    def peak_mib(self) -> float | None:
        return self.tokens


@pytest.mark.requirement("A3", "H3")
def test_models_state_and_metrics_show_the_same() -> None:
    """Of 2,000 MiB 1,300 are in use and the door refuses at 90 %: 500 tokens; what was not measured is null."""

    async def main() -> None:
        readings = {"host": Reading(1300.0 * MIB, 2000.0 * MIB)}
        async with serving({"semantic": Measured}, warm_up=60.0, readings=lambda: readings) as served:
            (state,) = (await served.observe("/state")).json["models"]
            (listed,) = (await served.ask("GET", "/v1/models")).json["data"]
            metrics = (await served.observe("/metrics")).body.decode()
            shown = state["warm_up"]
            assert listed["embedfleet"]["warm_up"] == shown
            assert shown["safe_batch_tokens"] == 500
            assert shown["reason"] == "larger batches would not have had room in memory"
            assert series(metrics, "embedfleet_safe_batch_tokens") == {'{model="semantic"}': 500}
            speeds = series(metrics, "embedfleet_warm_up_tokens_per_second")
            assert speeds == {
                '{length="16",model="semantic"}': pytest.approx(shown["tokens_per_second"]["16"], abs=0.1)
            }
            start = series(metrics, "embedfleet_warm_up_start_seconds")['{model="semantic"}']
            assert start * 1000 == pytest.approx(shown["start_milliseconds"], abs=0.001)
            seconds = series(metrics, "embedfleet_warm_up_seconds")['{model="semantic"}']
            assert seconds == pytest.approx(shown["seconds"], abs=0.001)
        async with serving(lazy=True, wait=False, warm_up=60.0) as served:
            assert (await served.embed("a text")).status == 200
            (listed,) = (await served.ask("GET", "/v1/models")).json["data"]
            assert listed["embedfleet"]["warm_up"] is None
            metrics = (await served.observe("/metrics")).body.decode()
            assert not series(metrics, "embedfleet_warm_up_tokens_per_second")
            assert not series(metrics, "embedfleet_safe_batch_tokens")

    run(main())
