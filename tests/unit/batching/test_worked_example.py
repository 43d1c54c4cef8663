"""The worked example of docs/batching.md, worked by the code itself."""

import pytest

from embedfleet_server.batching.fairness import Accounts
from embedfleet_server.batching.flow import length_bucket
from embedfleet_server.batching.policy import form
from embedfleet_server.batching.queue import ModelQueue
from embedfleet_server.batching.types import Policy, Room, Work


@pytest.mark.requirement("B5", "B21")
def test_the_batches_are_those_of_the_page() -> None:
    """First 28, 29, 30, 30 led by blue; then blue's 90 alone; then red's 31 and 12 together."""
    tenants = Accounts()
    for tenant, tokens in (("red", 900), ("blue", 400)):
        tenants.arrive(tenant, 1)
        tenants.serve(tenant, tokens)
    queue = ModelQueue(length_bucket, tenants)
    waiting = (("red", [30, 31, 12, 29, 30]), ("blue", [28]), ("blue", [90]))
    for number, (tenant, costs) in enumerate(waiting):
        queue.push(Work("m", costs, costs, None, 0.0, number, tenant=tenant), 0.0)
    policy, room = Policy(), Room(inputs=4, tokens=256)
    formed = []
    while queue.count:
        formed.append(sorted(entry[1] for entry in form(policy, room, queue, 0.0, padded=True, start_tokens=40)))
    assert formed == [[28, 29, 30, 30], [90], [12, 31]]
