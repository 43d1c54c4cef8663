"""A server with a certificate of a private authority."""

from pathlib import Path

import pytest

import embedfleet
from embedfleet import errors
from tests.support.certificates import pair, write
from tests.support.process import process


@pytest.mark.requirement("K1")
def test_a_private_authority_is_trusted_when_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By ca= or EMBEDFLEET_CA_FILE; without it the error says what about the certificate is not right."""
    tls = write(tmp_path / "tls", *pair("semantic"))
    ca = tls / "tls.crt"
    with process(tmp_path, "--tls", str(tls)) as server:
        server.line("is ready at")
        url = server.record.url
        assert url.startswith("https://")
        with embedfleet.connect(url=url, ca=ca) as service:
            assert service.embed("a").shape == (8,)
        with pytest.raises(errors.ServiceUnavailable, match="certificate"):
            embedfleet.connect(url=url)
        monkeypatch.setenv("EMBEDFLEET_CA_FILE", str(ca))
        with embedfleet.connect(url=url) as service:
            assert service.embed("a").shape == (8,)
