"""Reference rows beside the weights: what sentence-transformers made of known inputs in float32; each load meets them.

`embedfleet-reference.json` in the model's directory; `python -m embedfleet_server.reference` writes it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np

from embedfleet.api.models import Task
from embedfleet_server.engine.protocols import Item, Pair
from embedfleet_server.engine.rows import AnyRows, Ragged, SparseRows, finite
from embedfleet_server.models.files import read_json
from embedfleet_server.models.problems import ModelProblem
from embedfleet_server.models.self_test import items

FILE = "embedfleet-reference.json"
_VERSION = 1
_MOST_BYTES = 64 * 1024 * 1024
_DIGITS = 8  # significant ones: float32 has 7.2


@dataclass(frozen=True, slots=True)
class Reference:
    """Inputs and the float32 rows that a model of `task` must give for them, without a prompt."""

    task: Task
    items: tuple[Item, ...]
    rows: AnyRows


def compute(encoder: Any, task: Task) -> Reference:
    """The reference of a float32 model as sentence-transformers loads it; its own `encode` or `predict` computes it."""
    known = items(task)
    if task == "Rerank":
        from torch.nn import Identity

        pairs = [(pair.query, pair.text) for pair in known if isinstance(pair, Pair)]
        scores = np.asarray(encoder.predict(pairs, activation_fn=Identity(), prompt=""), np.float32)
        return Reference(task, tuple(known), scores.reshape(len(pairs), -1))
    if task == "Dense":
        encoder.truncate_dim = None  # the server cuts vectors later
        return Reference(task, tuple(known), np.asarray(encoder.encode(known, prompt=""), np.float32))
    if task == "Sparse":
        dense = encoder.encode_document(known, prompt="", convert_to_sparse_tensor=False)
        return Reference(task, tuple(known), SparseRows.of(dense.float().cpu().numpy()))
    vectors = encoder.encode_document(known, prompt="", convert_to_numpy=True, batch_size=1)
    return Reference(task, tuple(known), Ragged.of([np.asarray(one, np.float32) for one in vectors]))


def write(reference: Reference, file: Path) -> None:
    """Write the file whole or not at all."""
    content = {
        "version": _VERSION,
        "task": reference.task,
        "precision": "float32",
        "made_by": f"sentence-transformers {version('sentence-transformers')}",
        "items": [[item.query, item.text] if isinstance(item, Pair) else item for item in reference.items],
        **_plain(reference.rows),
    }
    draft = file.with_name(f"{file.name}.draft")
    draft.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(file)


def read(directory: Path) -> Reference | None:
    """The reference beside a model's weights; None where there is none; `ModelProblem` where it cannot be read."""
    file = directory / FILE
    if not file.is_file():
        return None
    if (size := file.stat().st_size) > _MOST_BYTES:
        raise ModelProblem(f"{file} has {size} bytes, and no reference needs more than {_MOST_BYTES}")
    try:
        return _parsed(read_json(file))
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise ModelProblem(
            f"{file} is no reference of this server's ({type(error).__name__}: {error}); make it anew with "
            f"python -m embedfleet_server.reference, or remove it"
        ) from error


def _parsed(content: dict[str, Any]) -> Reference:
    if content["version"] != _VERSION:
        raise ValueError(f"version is {content['version']!r} and must be {_VERSION}")
    if content["task"] not in get_args(Task):
        raise ValueError(f"task is {content['task']!r} and must be one of {', '.join(get_args(Task))}")
    known = tuple(_item(item) for item in content["items"])
    rows = _rows(content)
    if not known or len(rows) != len(known) or not finite(rows).all():
        raise ValueError(f"it has {len(known)} items and {len(rows)} rows: as many finite ones, at least one, are due")
    return Reference(content["task"], known, rows)


def _item(value: Any) -> Item:
    if isinstance(value, str):
        return value
    query, text = value
    if not isinstance(query, str) or not isinstance(text, str):
        raise TypeError("an item must be a text, or a pair of a query and a text")
    return Pair(query, text)


def _plain(rows: AnyRows) -> dict[str, Any]:
    if isinstance(rows, Ragged):
        return {"vectors": _numbers(rows.vectors), "offsets": rows.offsets.tolist()}
    if isinstance(rows, SparseRows):
        places = {"indices": rows.indices.tolist(), "offsets": rows.offsets.tolist()}
        return {"values": _numbers(rows.values), "dimensions": rows.dimensions, **places}
    return {"rows": _numbers(rows)}


def _numbers(array: Any) -> Any:
    if array.ndim > 1:
        return [_numbers(row) for row in array]
    return [float(f"{value:.{_DIGITS}g}") for value in array.tolist()]


def _rows(content: dict[str, Any]) -> AnyRows:
    if content["task"] == "MultiVector":
        vectors = _array(content["vectors"], np.float32, 2)
        return Ragged(vectors, _offsets(content["offsets"], len(vectors)))
    if content["task"] == "Sparse":
        values, indices = _array(content["values"], np.float32, 1), _array(content["indices"], np.int32, 1)
        dimensions = int(content["dimensions"])
        if len(values) != len(indices) or (len(indices) and not 0 <= indices.min() <= indices.max() < dimensions):
            raise ValueError("indices and values must be as many, and indices below dimensions")
        return SparseRows(indices, values, _offsets(content["offsets"], len(values)), dimensions)
    rows: AnyRows = _array(content["rows"], np.float32, 2)
    return rows


def _array(values: Sequence[Any], kind: Any, axes: int) -> Any:
    made = np.asarray(values, kind)
    if made.ndim != axes:
        raise ValueError(f"an array with {axes} axes is due, and {made.ndim} were found")
    return made


def _offsets(values: Sequence[int], entries: int) -> Any:
    made = _array(values, np.int64, 1)
    if not len(made) or made[0] != 0 or made[-1] != entries or (np.diff(made) < 0).any():
        raise ValueError("offsets must ascend from 0 to the number of entries")
    return made
