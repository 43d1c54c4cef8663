"""How a rollout goes on: pure decisions from what is observed."""

from embedfleet_operator.rollout.decision import Progress, decide, progress
from embedfleet_operator.rollout.leftovers import Child, leftovers
from embedfleet_operator.rollout.touching import touch, untouched

__all__ = ["Child", "Progress", "decide", "leftovers", "progress", "touch", "untouched"]
