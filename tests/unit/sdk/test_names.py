"""What the package shows, and what importing it brings along."""

import json
import subprocess
import sys

import pytest

import embedfleet
from embedfleet import errors

_ROOTS = "import sys; before = set(sys.modules); import {module}; after = set(sys.modules) - before;"
_TELL = (
    "import json; print(json.dumps(sorted({name.partition('.')[0] for name in after} - set(sys.stdlib_module_names))))"
)
_CONTRACT = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection", "embedfleet"}


def brought(module: str) -> set[str]:
    """Packages outside the standard library that importing `module` brings into a fresh interpreter."""
    code = _ROOTS.format(module=module) + _TELL
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return {name for name in json.loads(done.stdout) if not name.startswith("_sysconfigdata")}


def test_the_public_names() -> None:
    """`__all__` is the small surface that users may rely on, and every name of it is there."""
    assert embedfleet.__all__ == [
        "AsyncService", "Cache", "ClusterService", "Diagnosis", "EmbedResult", "EmbeddingService", "Service",
        "__version__", "apply", "connect", "connect_async", "delete", "doctor", "errors", "load", "services",
    ]  # fmt: skip
    assert all(getattr(embedfleet, name) is not None for name in embedfleet.__all__)
    assert dir(embedfleet) == sorted(embedfleet.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name that is not there is told as Python tells it."""
    with pytest.raises(AttributeError, match="no attribute 'conect'"):
        embedfleet.conect  # noqa: B018


@pytest.mark.requirement("K1")
def test_importing_the_package_brings_nothing() -> None:
    """`import embedfleet` loads no library at all, so neither torch, kubernetes, pandas, numpy nor aiohttp."""
    assert brought("embedfleet") == {"embedfleet"}


def test_importing_the_contract_brings_pydantic_and_nothing_else() -> None:
    """`import embedfleet.api` loads pydantic with what it is made of."""
    assert brought("embedfleet.api") <= _CONTRACT


def test_connect_stays_a_function_when_its_module_is_imported() -> None:
    """No submodule takes the place of the function `embedfleet.connect`."""
    code = "import embedfleet.connection, embedfleet; assert callable(embedfleet.connect); embedfleet.connect.__name__"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_error_is_of_one_tree_and_drawn() -> None:
    """All errors descend from EmbedfleetError, and the tree at the top of the file names each."""
    assert errors.__doc__ is not None
    for name in set(errors.__all__) - {"InputError"}:
        assert issubclass(getattr(errors, name), errors.EmbedfleetError)
        assert name in errors.__doc__
