"""From a document to a checked request. Whatever is wrong is refused here, once, with every bad input listed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeGuard

from embedfleet.api.models import Task
from embedfleet_server.app import fields
from embedfleet_server.app.document import decode
from embedfleet_server.app.errors import OverlongItems
from embedfleet_server.app.fields import Field, Fields, kind, short
from embedfleet_server.engine.errors import BadItems, InvalidRequest, ItemError, TooLarge
from embedfleet_server.engine.protocols import Item, Side
from embedfleet_server.engine.quantizing import Precision

Encoding = Literal["float", "base64"]
Dtype = Literal["float32"] | Precision
"""The type of a vector's numbers."""
DTYPES: tuple[Dtype, ...] = ("float32", "float16", "int8", "uint8", "binary", "ubinary")
NEEDS_RANGES: tuple[Dtype, ...] = ("int8", "uint8")
"""Types whose steps are told from the vectors of the request itself."""
EMPTY, WRONG_TYPE, TOO_LONG = "empty", "wrong_type", "too_long"
LONE_SURROGATE, OUT_OF_RANGE = "lone_surrogate", "token_out_of_range"
_LARGEST_TOKEN_ID = 2**31 - 1  # more than any vocabulary; keeps ids within what the models' tensors hold
_TOTAL_CHARACTERS = 16_000_000  # of all texts of a request (or ids of all its lists): minutes of tokenising


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A checked request: `items` in the order asked for, `bad` what cannot be embedded, by index."""

    items: Sequence[Item]
    model: str | None = None
    encoding: Encoding = "float"
    dimensions: int | None = None
    force_dimensions: bool = False
    """Whether `dimensions` may be a number that the model was not trained for."""
    input_type: str | None = None
    prompt_name: str | None = None
    """Like `input_type`, but the model must have a prompt of that name."""
    truncate: bool = True
    """Whether a text too long for the model is cut; else it is an error."""
    normalize: bool | None = None
    """Whether the vectors get length 1; None leaves them as the model gives them."""
    side: Side | None = None
    """The end that a text too long loses; None is the model's own."""
    dtype: Dtype = "float32"
    task: Task = "Dense"
    """The task of the models that can answer it."""
    bad: Mapping[int, ItemError] = field(default_factory=dict)

    def for_model(self, name: str) -> "EmbeddingRequest":
        """The same request to the model `name`."""
        return replace(self, model=name)


_TOKEN_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_SHAPES = "must be a string, a list of strings, a list of token ids or a list of such lists"
INPUTS = Field(
    lambda value: isinstance(value, str | list),
    _SHAPES,
    {
        "anyOf": [
            {"type": "string", "minLength": 1},
            {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
            _TOKEN_IDS,
            {"type": "array", "items": _TOKEN_IDS, "minItems": 1},
        ]
    },
    f"What to embed: it {_SHAPES}.",
    required=True,
)
"""Texts or token ids, one or many."""

DIMENSIONS = fields.positive("Length of the vectors; one of those the model was trained for.")
FORCE_DIMENSIONS = fields.flag("Take the first `dimensions` numbers of a model that was not trained for that, too.")
MODEL = fields.text("Name of the model; the service's default when unset.")
INPUT_TYPE = fields.one_of(
    "query", "document", about="Puts the model's prompt for it, if any, before each text; some models compute it so."
)
TRUNCATE = fields.flag("Cut texts too long for the model (the default); else they are an error.")
DIRECTION = fields.one_of(
    "Right",
    "right",
    "Left",
    "left",
    about="The end at which texts are cut; as the model's files say when unset.",
)
DTYPE = fields.one_of(
    *DTYPES,
    about="Type of the vectors' numbers. int8 and uint8 take their steps from the request's own vectors, two at least; "
    "binary and ubinary are eight dimensions to a number.",
)
PROMPT_NAME = fields.text("Name of the model's prompt to put before each text.")

OPENAI: Fields = {
    "input": INPUTS,
    "model": MODEL,
    "encoding_format": fields.one_of(
        "float", "base64", about="How a vector is written; base64 of little-endian float32."
    ),
    "dimensions": DIMENSIONS,
    "force_dimensions": FORCE_DIMENSIONS,
    "dtype": DTYPE,
    "output_dtype": fields.one_of(*DTYPES, about="Another name of `dtype`."),
    "input_type": INPUT_TYPE,
    "prompt_name": PROMPT_NAME,
    "truncate": TRUNCATE,
    "truncation_direction": DIRECTION,
    "user": fields.text("Taken and not used; a request's tenant is told by its key."),
}
"""What `POST /v1/embeddings` takes."""


def parse(body: bytes, *, max_inputs: int, max_characters: int, max_total: int = _TOTAL_CHARACTERS) -> EmbeddingRequest:
    """The request in `body`; raises `InvalidRequest` or `TooLarge`. Bad inputs are in `bad`: see `raise_bad`."""
    document = decode(body)
    fields.check(document, OPENAI)
    found = items(document["input"], "input", max_inputs, max_total)
    return EmbeddingRequest(
        items=found,
        model=document.get("model"),
        encoding=document.get("encoding_format") or "float",
        bad=bad_items(found, max_characters),
        **options(document),
    )


def options(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an `EmbeddingRequest` that have one name on every route; raises `InvalidRequest`."""
    if document.get("input_type") is not None and document.get("prompt_name") is not None:
        raise InvalidRequest("input_type and prompt_name both choose the prompt: give one of them", "prompt_name")
    direction = document.get("truncation_direction")
    return {
        "dimensions": document.get("dimensions"),
        "force_dimensions": bool(document.get("force_dimensions")),
        "input_type": document.get("input_type"),
        "prompt_name": document.get("prompt_name"),
        "truncate": document.get("truncate") is not False,
        "side": None if direction is None else direction.lower(),
        "dtype": _dtype(document),
    }


def _dtype(document: Mapping[str, Any]) -> Dtype:
    one, other = document.get("dtype"), document.get("output_dtype")
    if None not in (one, other) and one != other:
        raise InvalidRequest("dtype and output_dtype are two names of one field: give one of them", "output_dtype")
    found: Dtype = one or other or "float32"
    return found


def out_of_range(items: Sequence[Item], vocabulary: int) -> list[ItemError]:
    """The token id lists that hold an id the model does not know, `vocabulary` being its number of ids."""
    lists = ((i, item) for i, item in enumerate(items) if isinstance(item, list) and set(map(type, item)) == {int})
    return [error for i, ids in lists if (error := _range_error(i, ids, vocabulary)) is not None]


def raise_bad(bad: Mapping[int, ItemError]) -> None:
    """Raises `BadItems` listing every one, or `OverlongItems` when length is all that is wrong."""
    if bad:
        errors = [bad[index] for index in sorted(bad)]
        raise (OverlongItems if all(e.code == TOO_LONG for e in errors) else BadItems)(errors)


def items(given: str | list[Any], name: str, max_inputs: int, max_total: int) -> Sequence[Item]:
    """The inputs of the field `name` one by one; a list of numbers is one input, made of token ids."""
    if isinstance(given, str):
        return [given]
    if not given:
        raise InvalidRequest(f"{name} is an empty list: there is nothing to embed", name)
    if _is_number(given[0]):
        return [given]
    if len(given) > max_inputs:
        raise TooLarge(f"{name} holds {len(given)} entries; one request may carry at most {max_inputs}")
    total = sum(len(item) for item in given if isinstance(item, str | list))
    if total > max_total:
        raise TooLarge(f"{name} holds {total} characters (or token ids); one request may carry at most {max_total}")
    return given


def bad_items(given: Sequence[Any], max_characters: int) -> dict[int, ItemError]:
    """Every input that cannot be embedded whatever the model, by its index."""
    return {error.index: error for error in _bad_items(given, max_characters)}


def _bad_items(items: Sequence[Any], max_characters: int) -> list[ItemError]:
    """Every input that cannot be embedded whatever the model."""
    if _all_plain(items, max_characters):
        return []
    wanted = list if isinstance(items[0], list) else str
    found = (_item_error(i, item, wanted, max_characters) for i, item in enumerate(items))
    return [error for error in found if error is not None]


def _all_plain(items: Sequence[Any], max_characters: int) -> bool:
    """Whether all are sound texts: the common case, told without a Python step per input."""
    if set(map(type, items)) != {str} or not all(items) or max(map(len, items)) > max_characters:
        return False
    return all(map(str.isascii, items)) or not any(map(_has_surrogate, items))


def _item_error(index: int, item: Any, wanted: type[str] | type[list[Any]], max_characters: int) -> ItemError | None:
    if type(item) is not wanted:
        expected = "a list of token ids" if wanted is list else "a string"
        return ItemError(index, WRONG_TYPE, f"is {kind(item)}; every input here must be {expected}")
    if not item:
        return ItemError(index, EMPTY, "is empty: there is nothing to embed")
    if len(item) > max_characters:
        unit = "token ids" if wanted is list else "characters"
        return ItemError(index, TOO_LONG, f"has {len(item)} {unit}; at most {max_characters} are taken")
    return _text_error(index, item) if isinstance(item, str) else _ids_error(index, item)


def _text_error(index: int, text: str) -> ItemError | None:
    if not _has_surrogate(text):
        return None
    return ItemError(index, LONE_SURROGATE, "holds a lone surrogate, which is no character")


def _ids_error(index: int, ids: list[Any]) -> ItemError | None:
    if set(map(type, ids)) != {int}:
        place, wrong = next((i, value) for i, value in enumerate(ids) if type(value) is not int)
        return ItemError(index, WRONG_TYPE, f"holds {short(wrong)} at {place}; token ids are whole numbers")
    return _range_error(index, ids, _LARGEST_TOKEN_ID + 1)


def _range_error(index: int, ids: list[int], vocabulary: int) -> ItemError | None:
    if not ids or (min(ids) >= 0 and max(ids) < vocabulary):
        return None
    wrong = next(value for value in ids if not 0 <= value < vocabulary)
    return ItemError(index, OUT_OF_RANGE, f"holds token id {short(wrong)}; ids go from 0 to {vocabulary - 1}")


def _has_surrogate(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
