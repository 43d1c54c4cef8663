"""The operator's own tasks, without a cluster."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from embedfleet_operator.configuration import Configuration
from embedfleet_operator.run import Operator
from tests.cluster.kubeconfig import for_token, write


@pytest.mark.requirement("O7")
@pytest.mark.parametrize("ticks", range(5))
def test_a_worker_that_is_woken_as_it_is_to_end_ends(ticks: int, tmp_path: Path) -> None:
    """An event that comes with the end, however close, does not swallow it: the process would never end."""
    kubeconfig = write(tmp_path / "kubeconfig", for_token("http://127.0.0.1:1", b"", "t"))

    async def ends() -> bool:
        operator = Operator(Configuration(identity="me", kubeconfig=kubeconfig))
        operator._leadership = SimpleNamespace(holds=lambda: True)  # type: ignore[assignment]  # all that is asked of it
        operator._queue.add(("ns", "one"), asyncio.get_running_loop().time(), 60)
        worker = asyncio.create_task(operator._worker())
        for _ in range(5):
            await asyncio.sleep(0)
        operator._wake()
        for _ in range(ticks):
            await asyncio.sleep(0)
        worker.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        has_ended = worker.cancelled()
        worker.cancel()
        await asyncio.wait([worker])
        return has_ended

    assert asyncio.run(ends())
