"""One request until it is answered, in virtual time."""

import asyncio

import pytest

from embedfleet import errors
from embedfleet.attempts import Attempts, Timing
from embedfleet.gate import FIRST_LIMIT, Gate, Place
from embedfleet.retry import PATIENCE_SECONDS, Kind
from embedfleet.transport import AttemptFailed
from embedfleet.wire import Failure


class World:
    """Time that passes in `sleep` alone, and other requests of the client that are answered all the while or not."""

    def __init__(self, *, others_answered: bool) -> None:
        self.now, self.gate, self._others = 0.0, Gate(), others_answered
        self.attempts = Attempts("http://h", self.gate, Timing(lambda: self.now, self.sleep))

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now += seconds
        if self._others:
            self.gate.answered(self.now)

    def fail(self, code: str, status: int = 503, until: float = float("inf")) -> str:
        """Run a request that gets `code` up to the moment `until`."""

        async def once() -> str:
            if self.now < until:
                raise AttemptFailed(Failure(status, "not now", code, accepted=False, retry_after=1.0), "")
            return "vectors"

        return asyncio.run(self.attempts.until_answered(once, Place(1, 0)))


def test_a_full_server_is_waited_for_while_others_get_their_vectors() -> None:
    """An hour of refusals is no reason to give up when the client's other requests are answered meanwhile."""
    assert World(others_answered=True).fail("queue_full", 429, until=3600) == "vectors"


def test_others_answers_do_not_prolong_the_wait_for_a_model() -> None:
    """A model that never loads ends the request with that reason, however well other models answer."""
    world = World(others_answered=True)
    with pytest.raises(errors.Refused) as caught:
        world.fail("model_loading")
    assert caught.value.code == "model_loading"
    assert PATIENCE_SECONDS[Kind.LOADING] <= world.now <= PATIENCE_SECONDS[Kind.LOADING] + 2


def test_only_what_tells_of_load_lowers_the_limit() -> None:
    """A full server halves what is in flight; a model that loads says nothing about the rest."""
    world = World(others_answered=False)
    world.fail("model_loading", until=5)
    assert world.gate.limit >= FIRST_LIMIT
    world.fail("queue_full", 429, until=world.now + 0.5)
    assert world.gate.limit < FIRST_LIMIT
