"""`python -m embedfleet_server` with fake models: the real process, signals and exit, without torch.

Takes the server's own arguments; a forward of the word HOLD waits for a writer of the FIFO `$FAKE_GATE`.
"""

import os
import sys
from pathlib import Path

from embedfleet_server.__main__ import configure, leave, run
from embedfleet_server.app.settings import load
from embedfleet_server.engine.protocols import Loader, Model
from tests.support.fake_model import FakeModel
from tests.support.fake_tasks import FakeRerank


def _hold() -> None:
    with Path(os.environ["FAKE_GATE"]).open() as fifo:
        fifo.read()


def _loader(name: str) -> Loader:
    """Loads at once, but for a model named `stuck`: its load waits like a held forward. `rerank` is a reranker."""

    def load() -> Model:
        if name == "stuck":
            _hold()
        return FakeRerank(name) if name == "rerank" else FakeModel(name, hold=_hold)

    return load


if __name__ == "__main__":
    config = configure(sys.argv[1:], os.environ)
    leave(run(config, load(config.settings), lambda spec: _loader(spec.name)))
