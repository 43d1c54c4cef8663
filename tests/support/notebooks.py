"""The notebooks of `notebooks/`, run without a browser: one kernel each, in a folder of its own."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat.v4
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
NAMES = sorted(path.name for path in FOLDER.glob("*.ipynb"))
CELL_SECONDS = 300
"""Far above what a cell takes on a busy machine; one that hangs fails with its source."""


def read(name: str) -> Any:
    """The notebook as it lies in the tree."""
    return nbformat.read(FOLDER / name, as_version=4)  # type: ignore[no-untyped-call]  # as nbformat has it


def page(*cells: str) -> Any:
    """A notebook of these cells of code."""
    return nbformat.v4.new_notebook(cells=[_code(cell) for cell in cells])  # type: ignore[no-untyped-call]


def _code(source: str) -> Any:
    return nbformat.v4.new_code_cell(source)  # type: ignore[no-untyped-call]


def run(name: str, folder: Path, parameters: str = "", environ: Mapping[str, str] | None = None) -> Any:
    """The notebook with its outputs, run in `folder`; `parameters` is code put behind its cell of parameters.

    Raises `CellExecutionError` with the cell and its traceback.
    """
    whole = read(name)
    if parameters:
        (place,) = [number for number, cell in enumerate(whole.cells) if "parameters" in cell.metadata.get("tags", ())]
        whole.cells.insert(place + 1, _code(parameters))
    execute(whole, folder, environ)
    return whole


def execute(whole: Any, folder: Path, environ: Mapping[str, str] | None = None) -> None:
    """Run all cells of `whole` in a kernel of its own, and put the outputs there."""
    client = NotebookClient(whole, timeout=CELL_SECONDS, resources={"metadata": {"path": str(folder)}})
    asyncio.run(client.async_execute(env={**os.environ, **_quiet(), **(environ or {})}))


def said(whole: Any) -> str:
    """All that the cells have shown as text."""
    parts = [output for cell in whole.cells for output in cell.get("outputs", ())]
    return "\n".join(part.get("text") or part.get("data", {}).get("text/plain", "") for part in parts)


def html(whole: Any) -> str:
    """All that the cells have shown as HTML."""
    parts = [output for cell in whole.cells for output in cell.get("outputs", ())]
    return "\n".join(part.get("data", {}).get("text/html", "") for part in parts)


def pictures(whole: Any) -> int:
    """How many pictures the cells have shown."""
    parts = [output for cell in whole.cells for output in cell.get("outputs", ())]
    return sum("image/png" in part.get("data", {}) for part in parts)


def warned(whole: Any) -> list[str]:
    """Lines on standard error that warn."""
    parts = [output for cell in whole.cells for output in cell.get("outputs", ()) if output.get("name") == "stderr"]
    return [line for part in parts for line in part["text"].splitlines() if "Warning" in line]


def _quiet() -> dict[str, str]:
    """What keeps a kernel from asking for anything outside, and its caches in one place."""
    return {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "HF_HUB_OFFLINE": "1"}
