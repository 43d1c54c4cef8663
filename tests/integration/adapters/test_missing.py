"""Without the package an adapter names what brings it; none of them comes along with the SDK."""

import subprocess
import sys

import pytest

_IMPORT = """
import sys
sys.modules["{package}"] = None
import embedfleet.connection
assert "{package}" not in sorted(name for name, module in sys.modules.items() if module is not None)
from embedfleet import errors
try:
    import embedfleet.adapters.{adapter}
except errors.ExtraMissing as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("adapter", "package", "extra"),
    [
        ("langchain", "langchain_core", "langchain"),
        ("llama_index", "llama_index", "llama-index"),
        ("chroma", "chromadb", "chroma"),
    ],
)
def test_a_missing_package_is_named_with_what_installs_it(adapter: str, package: str, extra: str) -> None:
    """The import says which extra of embedfleet to install."""
    code = _IMPORT.format(adapter=adapter, package=package)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert f"pip install 'embedfleet[{extra}]'" in done.stdout


def test_the_twin_needs_no_package() -> None:
    """The twin of SentenceTransformer brings neither torch nor sentence-transformers."""
    code = (
        "import sys, embedfleet.adapters.sentence_transformers;"
        "assert not {'torch', 'sentence_transformers', 'langchain_core', 'llama_index', 'chromadb'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
