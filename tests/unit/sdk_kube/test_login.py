"""Exec login plug-ins: real programs, run once, heard, cached and renewed."""

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from embedfleet.errors import LoginFailed
from embedfleet.kube import credentials, login
from embedfleet.kube.config import Context, Plugin, Server, User
from embedfleet.kube.credentials import Credentials
from embedfleet.portal import portal

pytestmark = pytest.mark.requirement("K1")
SERVER = Server("https://lab:6443")
NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def plugin(tmp_path: Path, body: str, **fields: object) -> Plugin:
    """A plug-in of these lines of Python; `runs` in its folder has a line for each run."""
    program = tmp_path / "login.py"
    begin = f"import json, os, sys\nopen({str(tmp_path / 'runs')!r}, 'a').write('x\\n')\n"
    program.write_text(begin + body)
    return Plugin((sys.executable, str(program)), interactive="Never", **fields)  # type: ignore[arg-type]


def runs(tmp_path: Path) -> int:
    return len((tmp_path / "runs").read_text().splitlines())


def gives(token: str, expires: datetime | None = None) -> str:
    """A plug-in that gives a token, with the number of its run."""
    status = {"token": token} | ({"expirationTimestamp": expires.isoformat()} if expires else {})
    return f"print(json.dumps({{'kind': 'ExecCredential', 'status': {status!r}}}))"


def test_a_login_is_kept_until_it_expires(tmp_path: Path) -> None:
    """Clients of one user share one login; shortly before its end it is asked for anew."""
    clock = [NOW]
    made = plugin(tmp_path, gives("secret", NOW + timedelta(seconds=60)))
    context = Context("lab", SERVER, User(made))
    first, second = (Credentials(context, lambda: clock[0]) for _ in range(2))
    for one in (first, second, first):
        assert asyncio.run(_headers(one)) == {"Authorization": "Bearer secret"}
    assert runs(tmp_path) == 1
    clock[0] = NOW + timedelta(seconds=55)
    asyncio.run(_headers(first))
    assert runs(tmp_path) == 2


async def _headers(one: Credentials) -> dict[str, str]:
    return dict(await one.headers())


def test_what_was_refused_is_asked_for_once(tmp_path: Path) -> None:
    """Of two requests that were refused with one token, the second takes what the first has renewed."""
    one = Credentials(Context("lab", SERVER, User(plugin(tmp_path, gives("t")))))

    async def main() -> None:
        await one.headers()
        assert await one.renew()
        await one.headers()
        kept = dict(credentials._kept)
        one._used = None  # as a request sees it whose token was the old one
        assert await one.renew()
        assert dict(credentials._kept) == kept

    asyncio.run(main())
    assert runs(tmp_path) == 2


def test_a_token_of_the_file_has_no_better(tmp_path: Path) -> None:
    """Without a plug-in nothing can be renewed; a token file is read each time."""
    (tmp_path / "token").write_text("one\n")
    given = Credentials(Context("lab", SERVER, User(token_file=tmp_path / "token")))
    assert asyncio.run(_headers(given)) == {"Authorization": "Bearer one"}
    (tmp_path / "token").write_text("two\n")
    assert asyncio.run(_headers(given)) == {"Authorization": "Bearer two"}
    assert asyncio.run(given.renew()) is False


def test_the_prompt_is_shown_by_the_waiting_thread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the plug-in says on standard error is seen as it comes, though it runs on the private loop."""
    made = plugin(tmp_path, "sys.stderr.write('visit http://x and enter ABCD: ')\n" + gives("t"))
    given = portal().run(lambda _: login.run(made, SERVER))
    assert given.token == "t"
    assert capsys.readouterr().err == "visit http://x and enter ABCD: "


def test_the_plugin_is_told_of_the_cluster(tmp_path: Path) -> None:
    """KUBERNETES_EXEC_INFO has the cluster where the kubeconfig wants that; the plug-in's own variables are set."""
    told = tmp_path / "told"
    body = f"open({str(told)!r}, 'w').write(os.environ['KUBERNETES_EXEC_INFO'] + os.environ['A'])\n" + gives("t")
    asyncio.run(login.run(plugin(tmp_path, body, wants_cluster=True, environ=(("A", "!"),)), SERVER))
    info = json.loads(told.read_text().removesuffix("!"))
    assert info["spec"] == {"interactive": False, "cluster": {"server": "https://lab:6443"}}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "sys.stderr.write('no session; log in'); sys.exit(3)",
            "failed with status 3: no session; log in",
        ),
        ("print('<html>')", "printed no ExecCredential: '<html>"),
        ("print(json.dumps({'kind': 'ExecCredential', 'status': {}}))", "neither a token nor a certificate"),
    ],
)
def test_a_plugin_that_fails_is_named(tmp_path: Path, body: str, words: str) -> None:
    """With its own words, and no bare 401 later on."""
    with pytest.raises(LoginFailed, match=words):
        asyncio.run(login.run(plugin(tmp_path, body), SERVER))


def test_a_plugin_that_is_missing_says_how_to_get_it() -> None:
    """The kubeconfig's own hint is shown."""
    given = Plugin(("no-such-login",), hint="install lab-cli", interactive="Never")
    with pytest.raises(LoginFailed, match=r"'no-such-login' cannot be run: .*; install lab-cli"):
        asyncio.run(login.run(given, SERVER))


def test_a_plugin_that_asks_needs_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """interactiveMode Always where nobody can type is refused before it hangs."""
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(LoginFailed, match="interactiveMode: Always"):
        asyncio.run(login.run(Plugin(("true",), interactive="Always"), SERVER))
