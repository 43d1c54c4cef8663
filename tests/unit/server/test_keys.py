"""API keys from files: what a file may hold, whose a key is, and what is said of files that cannot be used."""

import hashlib
import logging
from pathlib import Path

import pytest

from embedfleet_server.app.keys import KeyRing, Keys, parse, presented, read

pytestmark = pytest.mark.requirement("S6")


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def test_a_file_holds_keys_one_a_line_plain_or_hashed() -> None:
    """Blank lines and comments are passed over; `sha256:` lines are digests, upper or lower case."""
    text = f"# of team a\n\n  first  \r\nsecond\nsha256:{digest('third').hex().upper()}\n"
    assert parse("a", text) == ([digest("first"), digest("second"), digest("third")], [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a: the file holds no key"),
        ("# nothing\n\n", "a: the file holds no key"),
        ("good\nsha256:1234", "a: line 2 is not sha256:"),
        ("good\ntwo words", "a: line 2 is no key"),
        ("good\nschlüssel", "a: line 2 is no key"),
    ],
)
def test_what_is_no_key_is_named_by_its_line(text: str, said: str) -> None:
    """The file and the line are named, the line itself is not shown; the good keys of the file hold."""
    digests, (problem,) = parse("a", text)
    assert problem.startswith(said)
    assert digests == ([digest("good")] if "good" in text else [])
    for line in text.split():
        assert line in ("#", "nothing", "two") or line not in problem


def test_files_of_a_mounted_secret(tmp_path: Path) -> None:
    """Each file is a tenant; the kubelet's own dotted names are none; a file that cannot be read is told."""
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "team-a").write_text("one\ntwo")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "team-a").symlink_to("..data/team-a")
    (tmp_path / "team-b").write_bytes(b"\xff\xfe")
    (tmp_path / "team-c").write_text("two")
    ring, problems = read(tmp_path)
    assert ring.tenants == ["team-a", "team-c"]
    assert [ring.tenant_of(key) for key in ("one", "two", "three", "")] == ["team-a", "team-a", None, None]
    assert problems == [
        "team-b: cannot be read: it is no text",
        "team-c: a key of team-a stands here too; it stays team-a's",
    ]


def test_every_key_is_compared_whichever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first key, the last and a wrong one take as many comparisons, each by hmac's."""
    seen: list[bytes] = []

    def compare(known: bytes, given: bytes) -> bool:
        seen.append(known)
        return known == given

    monkeypatch.setattr("hmac.compare_digest", compare)
    ring = KeyRing(tuple((str(i), digest(str(i))) for i in range(5)))
    for key, tenant in (("0", "0"), ("4", "4"), ("no", None)):
        seen.clear()
        assert ring.tenant_of(key) == tenant
        assert len(seen) == 5


def test_a_digest_is_no_key(tmp_path: Path) -> None:
    """Whoever reads a file of hashed keys cannot come in with what stands there, whole or in part."""
    hashed = digest("secret").hex()
    (tmp_path / "team").write_text(f"sha256:{hashed}")
    ring, _ = read(tmp_path)
    assert ring.tenant_of("secret") == "team"
    for said in (hashed, hashed.upper(), f"sha256:{hashed}", f"SHA256:{hashed}"):
        assert ring.tenant_of(said) is None


@pytest.mark.parametrize(
    ("headers", "keys"),
    [
        ({"Authorization": "Bearer a"}, ["a"]),
        ({"Authorization": "bearer  a "}, ["a"]),
        ({"X-API-Key": "b", "Authorization": "Bearer a"}, ["b", "a"]),
        ({"Authorization": "Basic a"}, []),
        ({"Authorization": "Bearer"}, []),
        ({}, []),
    ],
)
def test_where_a_key_stands(headers: dict[str, str], keys: list[str]) -> None:
    """Both headers are read; a proxy's own `Authorization` does not hide the key in `X-API-Key`."""
    assert presented(headers) == keys


def swap(directory: Path, name: str, files: dict[str, str]) -> None:
    """What the kubelet does: a new folder, then one rename of the link that all files go through."""
    (directory / name).mkdir()
    for file, text in files.items():
        (directory / name / file).write_text(text)
    (directory / "..new").symlink_to(name)
    (directory / "..new").rename(directory / "..data")
    for file in files:
        if not (directory / file).is_symlink():
            (directory / file).symlink_to(f"..data/{file}")


def test_a_swap_changes_the_keys_and_nothing_tells_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Keys come and go with the files; the log has tenants and counts, and neither keys nor digests."""
    caplog.set_level(logging.DEBUG)
    swap(tmp_path, "..1", {"team": "first-secret\nsecond-secret"})
    keys = Keys(tmp_path)
    assert keys.ring.tenant_of("first-secret") == "team"
    swap(tmp_path, "..2", {"team": f"sha256:{digest('third-secret').hex()}"})
    keys.look()
    assert [keys.ring.tenant_of(f"{n}-secret") for n in ("first", "third")] == [None, "team"]
    swap(tmp_path, "..3", {"team": "# revoked"})
    keys.look()
    keys.look()
    assert keys.ring == KeyRing()
    assert keys.rejected == 1
    assert "API keys: team: the file holds no key" in caplog.messages
    assert "tenants=none, so that every request is refused" in caplog.text
    assert "secret" not in caplog.text
    assert digest("third-secret").hex() not in caplog.text


def test_a_directory_that_is_not_there_opens_nothing(tmp_path: Path) -> None:
    """At the start it is said and no key is valid; once the directory is there its keys are."""
    keys = Keys(tmp_path / "keys")
    assert keys.ring == KeyRing()
    assert keys.rejected == 1
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "a").write_text("k")
    keys.look()
    assert keys.ring.tenant_of("k") == "a"
    (tmp_path / "keys" / "a").unlink()
    (tmp_path / "keys").rmdir()
    keys.look()
    assert keys.ring.tenant_of("k") == "a", "a directory that cannot be listed revokes nothing by accident"


def test_files_that_begin_with_a_dot_hold_no_keys(tmp_path: Path) -> None:
    """An editor's or the kubelet's own: what stands in them opens nothing."""
    (tmp_path / "team").write_text("good")
    (tmp_path / ".team.swp").write_text("revoked")
    ring, problems = read(tmp_path)
    assert (ring.tenants, problems) == (["team"], [])
    assert ring.tenant_of("revoked") is None
