"""What the parity tests share."""

import pytest

from embedfleet_server.models import packing


@pytest.fixture(params=["as taken", "padded"])
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Loads as models are, and padded whatever they can."""
    if request.param == "padded":
        left = packing.Layout("padded", "by this test")
        monkeypatch.setattr(packing, "packed", lambda *_, **__: (None, left))
    return str(request.param)
