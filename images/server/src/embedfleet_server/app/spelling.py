"""`/tokenize` and `/decode`, as text-embeddings-inference has them: a model's tokenizer shown at work."""

from collections.abc import Iterator, Sequence
from typing import Any

import orjson
from aiohttp import web

from embedfleet_server.app import answers, fields
from embedfleet_server.app.document import decode
from embedfleet_server.app.door import Door
from embedfleet_server.app.fields import Field, Fields
from embedfleet_server.app.outcome import check_prompt
from embedfleet_server.app.requests import PROMPT_NAME, bad_items, items, out_of_range, raise_bad
from embedfleet_server.engine.errors import InvalidRequest, TooLarge
from embedfleet_server.engine.protocols import Token

_CHARACTERS = 250_000  # of a request: an answer is some 15 times as long as its text
_TOKENS_AT_ONCE = 1000  # orjson holds the GIL: less than a millisecond
_SMALL = 500  # characters or ids; what is more is written off the event loop
_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
TOKENIZE: Fields = {
    "inputs": Field(
        lambda value: isinstance(value, str | list),
        "must be a string or a list of strings",
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
            ]
        },
        required=True,
    ),
    "add_special_tokens": fields.flag("With the special tokens that the model computes too (the default)."),
    "prompt_name": PROMPT_NAME,
}
"""What `POST /tokenize` takes."""
DECODE: Fields = {
    "ids": Field(
        lambda value: isinstance(value, list),
        "must be a list of token ids or a list of such lists",
        {"anyOf": [_IDS, {"type": "array", "items": _IDS, "minItems": 1}]},
        required=True,
    ),
    "skip_special_tokens": fields.flag("Leave special tokens out of the text (the default)."),
}
"""What `POST /decode` takes."""


class Spelling:
    """The handlers."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def tokenize(self, request: web.Request) -> web.Response:
        """`POST /tokenize`: every token of each text; nothing is cut."""
        scheduled, engine = self._door.scheduled(request), self._door.engine
        texts, document = await self._door.read(request, self._texts)
        model, prompt = engine.resolve(request.match_info.get("model")), document.get("prompt_name")
        self._door.take(request)
        found = await engine.tokenize(
            model,
            texts,
            special=document.get("add_special_tokens") is not False,
            prompt_name=prompt,
            tenant=scheduled.tenant,
            within=scheduled.within,
            check=lambda info: check_prompt(info, prompt),
        )
        large = sum(map(len, found)) > _SMALL
        return await self._door.tell(lambda: answers.Encoded(_tokens(found), answers.JSON, {}), large=large)

    async def decode(self, request: web.Request) -> web.Response:
        """`POST /decode`: the text of each list of ids."""
        scheduled, engine = self._door.scheduled(request), self._door.engine
        ids, document = await self._door.read(request, self._ids)
        model = engine.resolve(request.match_info.get("model"))
        self._door.take(request)
        found = await engine.decode(
            model,
            ids,
            special=document.get("skip_special_tokens") is False,
            tenant=scheduled.tenant,
            within=scheduled.within,
            check=lambda info: raise_bad({error.index: error for error in out_of_range(ids, info.vocabulary)}),
        )
        large = sum(map(len, found)) > _CHARACTERS
        return await self._door.tell(lambda: answers.Encoded(orjson.dumps(found), answers.JSON, {}), large=large)

    def _texts(self, raw: bytes) -> tuple[Sequence[str], dict[str, Any]]:
        document = decode(raw)
        fields.check(document, TOKENIZE)
        return self._checked(document["inputs"], "inputs", str), document

    def _ids(self, raw: bytes) -> tuple[Sequence[list[int]], dict[str, Any]]:
        document = decode(raw)
        fields.check(document, DECODE)
        return self._checked(document["ids"], "ids", list), document

    def _checked(self, given: Any, name: str, kind: type[str] | type[list[int]]) -> Any:
        """The inputs one by one, sound and of `kind`; raises what tells of every bad one."""
        found = items(given, name, self._door.engine.max_inputs, self._door.limits.total_characters)
        if sum(len(one) for one in found if isinstance(one, str | list)) > _CHARACTERS:
            raise TooLarge(f"{name} holds more than {_CHARACTERS} characters (or token ids), the most of a request")
        raise_bad(bad_items(found, self._door.limits.text_characters))
        if not isinstance(found[0], kind):
            wanted = "strings" if kind is str else "lists of token ids"
            raise InvalidRequest(f"{name} must hold {wanted}", name)
        return found


def _tokens(found: Sequence[Sequence[Token]]) -> bytes:
    return b"".join((b"[", b",".join(_row(row) for row in found), b"]"))


def _row(row: Sequence[Token]) -> bytes:
    return b"".join((b"[", b",".join(_pieces(row)), b"]"))


def _pieces(row: Sequence[Token]) -> Iterator[bytes]:
    for start in range(0, len(row), _TOKENS_AT_ONCE):
        yield orjson.dumps(row[start : start + _TOKENS_AT_ONCE])[1:-1]
