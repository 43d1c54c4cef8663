"""How the rows of one shard are written and read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from embedfleet.extras import need
from embedfleet.wire import Rows

ShardFormat = Literal["npy", "arrow", "parquet"]
"""NumPy's own, or a table with the one column `vector` (fixed-size lists of float32) as an Arrow or Parquet file."""

_COLUMN = "vector"


@dataclass(frozen=True, slots=True)
class Format:
    """One format; `check` raises `ExtraMissing` where its library is not installed."""

    ending: str
    write: Callable[[BinaryIO, Rows], object]
    read: Callable[[Path], Rows]
    check: Callable[[], object]


def _write_npy(out: BinaryIO, rows: Rows) -> None:
    np.lib.format.write_array(out, np.ascontiguousarray(rows, "<f4"), version=(1, 0))


def _read_npy(path: Path) -> Rows:
    rows: Rows = np.load(path)
    return rows


def _arrow() -> Any:
    return need("pyarrow", "arrow", "the format")


def _parquet() -> Any:
    return need("pyarrow.parquet", "arrow", "the format", package="pyarrow")


def _table(rows: Rows) -> Any:
    arrow = _arrow()
    vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(rows.ravel()), rows.shape[1])
    return arrow.table({_COLUMN: vectors})


def _write_arrow(out: BinaryIO, rows: Rows) -> None:
    table = _table(rows)
    with need("pyarrow.ipc", "arrow", "the format").new_file(out, table.schema) as file:
        file.write_table(table)


def _read_arrow(path: Path) -> Rows:
    with _arrow().memory_map(str(path)) as source:
        return _rows(need("pyarrow.ipc", "arrow", "the format").open_file(source).read_all())


def _write_parquet(out: BinaryIO, rows: Rows) -> None:
    _parquet().write_table(_table(rows), out)


def _read_parquet(path: Path) -> Rows:
    return _rows(_parquet().read_table(path))


def _rows(table: Any) -> Rows:
    """The column as one array of its own memory, shape (n, d)."""
    column = table.column(_COLUMN).combine_chunks()
    chunks = getattr(column, "chunks", [column])
    width = column.type.list_size
    rows: Rows = np.concatenate([chunk.flatten().to_numpy().reshape(-1, width) for chunk in chunks])
    return rows


FORMATS: Mapping[str, Format] = {
    "npy": Format(".npy", _write_npy, _read_npy, lambda: None),
    "arrow": Format(".arrow", _write_arrow, _read_arrow, _arrow),
    "parquet": Format(".parquet", _write_parquet, _read_parquet, _parquet),
}
