"""The import contracts of pyproject.toml cover every module there is: what is added is not left out by oversight."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
CONTRACTS: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
    "importlinter"
]["contracts"]


def contract(words: str) -> dict[str, Any]:
    (found,) = (contract for contract in CONTRACTS if contract["name"].startswith(words))
    return found


def modules(source: str) -> set[str]:
    """The modules and packages directly in a distribution's package."""
    folder = ROOT / source
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    return {f"{folder.name}.{name}" for name in names - {"__init__"}}


@pytest.mark.parametrize("words", ["The contract imports", "The server imports only", "The operator imports only"])
def test_all_of_the_sdk_but_the_contract_is_forbidden(words: str) -> None:
    """Where only `embedfleet.api` may be imported, every other module of the SDK is named as forbidden."""
    rest = modules("sdk/src/embedfleet") - {"embedfleet.api"}
    assert rest - set(contract(words)["forbidden_modules"]) == set()


def test_torch_is_forbidden_outside_models() -> None:
    """Each module of the server but `models`, and those three that import it, is kept off torch."""
    sources = set(contract("Torch and its libraries")["source_modules"])
    assert modules("images/server/src/embedfleet_server") - sources == {
        "embedfleet_server.__main__",
        "embedfleet_server.fetch",
        "embedfleet_server.models",
        "embedfleet_server.reference",
    }


def test_contracts_have_names_of_their_own() -> None:
    """A broken arrow is told in English, and no two alike."""
    names = [contract["name"] for contract in CONTRACTS]
    assert len(set(names)) == len(names)
    assert all(" " in name for name in names)
