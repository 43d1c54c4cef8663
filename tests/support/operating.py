"""The operator in a process of its own, with a proxy through which it asks pods: see `Pods`."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

from embedfleet_operator.configuration import Configuration
from embedfleet_operator.run import Operator

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def operating(
    kubeconfig: Path, proxy: str, resync_seconds: float, observe_port: int | None = None
) -> Iterator[Popen[bytes]]:
    """An operator of the whole cluster inside; it must end well."""
    command = [sys.executable, "-m", "tests.support.operating", str(kubeconfig), proxy, str(resync_seconds)]
    command += [] if observe_port is None else ["--observe-port", str(observe_port)]
    with Popen(command, cwd=ROOT) as running:
        try:
            yield running
        except BaseException:
            running.kill()
            raise
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0, "the operator has not ended well"


async def _operate(configuration: Configuration, proxy: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await Operator(configuration, proxy=proxy).run(stop)


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kubeconfig", type=Path)
    parser.add_argument("proxy")
    parser.add_argument("resync_seconds", type=float)
    parser.add_argument("--observe-port", type=int)
    given = parser.parse_args()
    configuration = Configuration(
        identity="measured",
        kubeconfig=given.kubeconfig,
        resync_seconds=given.resync_seconds,
        observe_host="127.0.0.1",
        observe_port=given.observe_port,
    )
    asyncio.run(_operate(configuration, given.proxy))


if __name__ == "__main__":
    main()
