"""Search Python's standard library by meaning: embed its docstrings, then ask for functions in plain words.

Needs a running service (`make serve`, or `embedfleet serve -f examples/embeddingservice.yaml`); `make demo` runs both.
"""

import argparse
import ast
import json
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import embedfleet as sdk
from embedfleet.api.local import LocalRecord

QUESTIONS = (
    "parse a date from a string",
    "run a command and capture what it prints",
    "compress some bytes",
    "remove a folder with everything in it",
    "split a command line into words as a shell would",
)
NEAREST = 5
# Not what one looks for in the library: its own tests and tools, what is on its way out, and what others installed.
SKIPPED = {
    "__pycache__",
    "dist-packages",
    "distutils",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "site-packages",
    "test",
    "tests",
    "turtledemo",
}

Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def docstrings(library: Path) -> dict[str, str]:
    """The first paragraph of each public function's and class's docstring, by dotted name; read, never imported."""
    found: dict[str, str] = {}
    for path in sorted(library.rglob("*.py")):
        module = module_name(path.relative_to(library))
        if module is not None:
            found |= dict(documented(ast.parse(path.read_bytes()).body, module))
    return found


def module_name(path: Path) -> str | None:
    """The public name of the module in `path`, or None for one that is private or skipped."""
    # `_pydatetime` and its like are the Python twins of modules written in C: told under the name one imports.
    parts = [part.removeprefix("_py") for part in path.with_suffix("").parts if part != "__init__"]
    if SKIPPED.intersection(path.parts) or any(part.startswith("_") for part in parts):
        return None
    return ".".join(parts)


def documented(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, str]]:
    """Names and first paragraphs of what `body` defines, methods included."""
    for node in body:
        if not isinstance(node, Documented) or node.name.startswith("_"):
            continue
        name = f"{prefix}.{node.name}"
        paragraph = (ast.get_docstring(node) or "").partition("\n\n")[0]
        if paragraph.strip():
            yield name, " ".join(paragraph.split())
        if isinstance(node, ast.ClassDef):
            yield from documented(node.body, name)


def nearest(vectors: np.ndarray, asked: np.ndarray) -> list[tuple[int, float]]:
    """The rows of `vectors` (n, d) nearest to `asked` (d,) with their cosine, best first; all have length 1."""
    cosines = vectors @ asked
    return [(int(row), float(cosines[row])) for row in np.argsort(-cosines)[:NEAREST]]


def batch_sizes(service: str | None) -> dict[int, int]:
    """How many batches of each size the server has formed; empty for one that does not run on this machine."""
    sizes: dict[int, int] = {}
    for record in sdk.services():
        if isinstance(record, LocalRecord) and record.service == service:
            with urllib.request.urlopen(f"{record.observe_url}/state", timeout=10) as answer:
                sizes = {int(size): count for size, count in json.load(answer)["batches"]["sizes"].items()}
    return sizes


def main() -> None:
    """Embed the docstrings, answer the questions, and say how fast it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--service", default="semantic", help="a running service (default: %(default)s)")
    chosen = parser.parse_args()
    found = docstrings(Path(sysconfig.get_path("stdlib")))
    names, texts = list(found), [f"{name}: {text}" for name, text in found.items()]
    with sdk.connect(chosen.service) as service:
        started = time.perf_counter()
        vectors = service.embed(texts, progress=True)
        seconds = time.perf_counter() - started
        for question in QUESTIONS:
            print(f"\n{question}")
            for row, cosine in nearest(vectors, service.embed(question)):
                print(f"  {cosine:.3f}  {names[row]}: {found[names[row]][:70]}")
    print(f"\n{len(texts)} texts, vectors {vectors.shape} {vectors.dtype}: {len(texts) / seconds:.0f} texts/s")
    formed = ", ".join(f"{count} of {size}" for size, count in sorted(batch_sizes(service.info.name).items()))
    print(f"batches the server formed: {formed or 'not known from here'}")


if __name__ == "__main__":
    main()
