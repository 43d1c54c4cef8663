"""TLS from files, over a real socket: what a client sees of a renewal, and what a bad pair does."""

import asyncio
import contextlib
import logging
import ssl
import warnings
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import PrivateFormat

from embedfleet_server.app.tls import CERTIFICATE, KEY, Tls, WrongPair
from tests.support.certificates import pair, write
from tests.support.process import process
from tests.support.served import Served, run, serving

pytestmark = pytest.mark.requirement("S6")
ON_A_TERMINAL = "tests.support.serve_on_terminal"
REQUEST = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def trusting(*certificates: bytes) -> ssl.SSLContext:
    return ssl.create_default_context(cadata="".join(certificate.decode() for certificate in certificates))


async def connected(served: Served, context: ssl.SSLContext) -> tuple[Streams, str]:
    """A connection and the common name of the server's certificate."""
    streams = await asyncio.open_connection(served.host, served.port, ssl=context)
    subject = streams[1].get_extra_info("peercert")["subject"]
    return streams, subject[0][0][1]


async def healthy(streams: Streams) -> bool:
    streams[1].write(REQUEST)
    return (await streams[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def leave(*streams: Streams) -> None:
    for _, writer in streams:
        writer.close()
        await writer.wait_closed()


def test_a_renewed_certificate_is_taken_up_and_no_connection_ends(tmp_path: Path) -> None:
    """Open connections go on; new ones see the new certificate; nobody who trusts only the old one gets in."""
    first, second = pair("first"), pair("second")
    tls = Tls(write(tmp_path / "tls", *first))

    async def main() -> None:
        async with serving(tls=tls) as served:
            trusted = trusting(first[0], second[0])
            old, name = await connected(served, trusted)
            assert (name, await healthy(old)) == ("first", True)
            write(tmp_path / "tls", *second)
            tls.look()
            new, name = await connected(served, trusted)
            assert (name, await healthy(new), await healthy(old)) == ("second", True, True)
            with pytest.raises(ssl.SSLCertVerificationError):
                await connected(served, trusting(first[0]))
            await leave(old, new)

    run(main())


@pytest.mark.parametrize("fault", ["another key", "no key", "half a certificate", "a password"])
def test_a_bad_pair_keeps_the_old_one(tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str) -> None:
    """It is logged once and counted, and new connections still get the old certificate; a good one is then used."""
    caplog.set_level(logging.INFO)
    good, other = pair("good"), pair("other")
    tls = Tls(write(tmp_path / "tls", *good))

    async def main() -> None:
        async with serving(tls=tls) as served:
            bad = {"another key": (other[0], pair("x")[1]), "half a certificate": (other[0][:100], other[1])}
            bad |= {"a password": pair("locked", b"secret"), "no key": other}
            write(tmp_path / "tls", *bad[fault])
            if fault == "no key":
                (tmp_path / "tls" / KEY).unlink()
            tls.look()
            tls.look()
            assert tls.rejected == 1
            assert (await served.observe("/state")).json["tls"] == {"rejected": 1}
            streams, name = await connected(served, trusting(good[0]))
            assert (name, await healthy(streams)) == ("good", True)
            await leave(streams)
            write(tmp_path / "tls", *other)
            tls.look()
            streams, name = await connected(served, trusting(other[0]))
            assert name == "other"
            await leave(streams)

    run(main())
    assert [r.levelname for r in caplog.records if "certificate" in r.getMessage()] == ["ERROR", "INFO"]


def test_a_bad_pair_at_the_start_is_an_error(tmp_path: Path) -> None:
    """It names both files and says what is wrong; nothing listens."""
    with pytest.raises(WrongPair, match=r"tls\.crt and .*tls\.key must be a PEM chain and its key"):
        Tls(write(tmp_path / "tls", pair("a")[0], pair("b")[1]))
    with process(tmp_path, "--tls", str(tmp_path / "none")) as server:
        _, err = server.running.communicate(timeout=60)
        assert server.running.returncode == 1
        assert f"error: {tmp_path / 'none' / CERTIFICATE}" in err
        assert "No such file" in err


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_a_key_with_a_password_is_an_error_and_no_question(tmp_path: Path, form: PrivateFormat) -> None:
    """At the start the file is named; OpenSSL, which would ask on the process's terminal and wait, is not let."""
    directory = write(tmp_path / "tls", *pair("locked", b"secret", form))
    with process(tmp_path, "--tls", str(directory), module=ON_A_TERMINAL) as server:
        _, err = server.running.communicate(timeout=60)
        assert server.running.returncode == 1
        assert f"error: {directory / KEY} has a password" in err
        assert "store the key without one" in err


def test_a_key_that_gets_a_password_leaves_the_old_one_in_force(tmp_path: Path) -> None:
    """The process asks nobody and serves on with the old pair; the next one without a password is taken up."""
    first, third = pair("first"), pair("third")
    trusted = trusting(first[0], third[0])

    async def name(url: str) -> str:
        streams = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]), ssl=trusted)
        assert await healthy(streams)
        subject = streams[1].get_extra_info("peercert")["subject"]
        await leave(streams)
        return str(subject[0][0][1])

    directory = write(tmp_path / "tls", *first)
    with process(tmp_path, "--tls", str(directory), module=ON_A_TERMINAL) as server:
        server.line("is ready at")
        (directory / KEY).write_bytes(pair("locked", b"secret")[1])
        while not server.ask("GET", "/state", observe=True)[1]["tls"]["rejected"]:
            pass
        assert asyncio.run(name(server.record.url)) == "first"
        write(directory, *third)
        while asyncio.run(name(server.record.url)) == "first":
            pass
        server.running.terminate()
        _, err = server.running.communicate(timeout=60)
        assert f"the old one stays: {directory / KEY} has a password" in err


def test_a_key_swapped_for_one_with_a_password_after_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The live context asks nobody either, should the files change between the trial and it."""
    tls = Tls(write(tmp_path / "tls", *pair("first")))
    write(tmp_path / "tls", *pair("locked", b"secret"))
    monkeypatch.setattr("embedfleet_server.app.tls._context", lambda directory: None)
    tls.look()
    assert tls.rejected == 1
    assert f"{KEY} has a password" in caplog.text


def test_versions_that_are_broken_are_not_spoken(tmp_path: Path) -> None:
    """TLS 1.2 is the oldest, whatever OpenSSL would allow; a client that offers no newer one is refused."""
    own = pair("only")
    tls = Tls(write(tmp_path / "tls", *own))
    assert tls.context.minimum_version == ssl.TLSVersion.TLSv1_2
    old = trusting(own[0])
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that it is broken is the point
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1

    async def main() -> None:
        async with serving(tls=tls) as served:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await connected(served, old)

    run(main())


def test_plain_http_is_not_served_beside_it(tmp_path: Path) -> None:
    """A client that speaks plain HTTP to the port gets no answer of the service."""
    tls = Tls(write(tmp_path / "tls", *pair("only")))

    async def main() -> None:
        async with serving(tls=tls) as served:
            reader, writer = await asyncio.open_connection(served.host, served.port)
            writer.write(REQUEST)
            with contextlib.suppress(ConnectionResetError):
                assert b"HTTP/1.1 200" not in await reader.read()
            await leave((reader, writer))

    run(main())


def test_the_process_serves_tls(tmp_path: Path) -> None:
    """`--tls DIR`: the record says https, and a client that trusts the certificate is answered."""
    certificate, key = pair("process")
    with process(tmp_path, "--tls", str(write(tmp_path / "tls", certificate, key))) as server:
        server.line("is ready at")
        assert server.record.url.startswith("https://127.0.0.1:")
        assert server.ask("GET", "/ready", observe=True)[0].status == 200

        async def main() -> None:
            port = int(server.record.url.rpartition(":")[2])
            streams = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(certificate))
            assert await healthy(streams)
            await leave(streams)

        run(main())
