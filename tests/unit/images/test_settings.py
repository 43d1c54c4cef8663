"""What a build takes of this machine."""

import pytest

from tools.images import base, engine
from tools.images.errors import BuildFailed


@pytest.mark.requirement("O6")
def test_the_way_to_an_index_is_handed_on() -> None:
    """A build gets pip's settings of the way to an index, the environment's before a file's; folders of this machine
    stay here, and the certificates are a file of their own.
    """
    told = "\n".join(
        [
            ":env:.cert='/etc/ca.crt'",
            ":env:.find-links='/opt/wheels'",
            ":env:.index-url='https://user:secret@index.example/simple'",
            "global.index-url='https://other.example/simple'",
            "global.extra-index-url='https://a.example\\nhttps://b.example'",
        ]
    )
    settings, certificate = engine.pip_settings(told)
    assert settings == (
        "[global]\nindex-url = https://user:secret@index.example/simple\n"
        "extra-index-url = https://a.example\n    https://b.example\n"
    )
    assert certificate == "/etc/ca.crt"
    assert engine.pip_settings("") == ("[global]\n", None)


@pytest.mark.requirement("O6")
def test_an_engine_that_runs_is_taken() -> None:
    """Docker before Podman, either only if it answers; none where none does."""
    assert engine.running(lambda command: True) == engine.Engine(("docker",))
    assert engine.running(lambda command: command[0] == "podman") == engine.Engine(("podman",))
    assert engine.running(lambda command: False) is None


@pytest.mark.requirement("O6")
def test_the_base_comes_from_where_apt_gets_its_packages() -> None:
    """The mirror of the release itself is taken, not one of its updates; without any that is said."""
    told = "http://a.example/debian-security/ bookworm-security main\nhttp://a.example/debian/ bookworm main\n"
    assert base.mirror(told, "bookworm") == "http://a.example/debian/"
    with pytest.raises(BuildFailed, match="trixie"):
        base.mirror(told, "trixie")
