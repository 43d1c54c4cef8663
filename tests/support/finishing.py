"""How a test of the engine ends."""

from embedfleet_server.engine.engine import Engine


async def finish(made: Engine) -> None:
    """Stop, and see that nothing is left."""
    await made.stop(60.0)
    stats = made.stats()
    assert stats.waiting == stats.running == stats.active_batches == made.total_queue_depth == 0
    assert stats.submitted == stats.completed + stats.failed + stats.cancelled
