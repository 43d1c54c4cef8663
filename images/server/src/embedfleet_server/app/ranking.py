"""Rerank's routes: texts in the order of how well they answer a query, as text-embeddings-inference and Cohere tell it.

Scores are the model's own: its files' activation is put over its logits, as sentence-transformers does, and
text-embeddings-inference (which always takes the sigmoid) for every model that names none. `raw_scores` leaves it out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import orjson
from aiohttp import web

from embedfleet_server.app import answers, fields
from embedfleet_server.app.document import decode
from embedfleet_server.app.door import PARTIAL_HEADER, Door, is_partial
from embedfleet_server.app.errors import item_errors
from embedfleet_server.app.fields import Field, Fields, kind
from embedfleet_server.app.outcome import Outcome
from embedfleet_server.app.requests import (
    DIRECTION,
    MODEL,
    PROMPT_NAME,
    TRUNCATE,
    EmbeddingRequest,
    bad_items,
    options,
)
from embedfleet_server.app.routes import Content, Route
from embedfleet_server.app.shapes import Ranks, RerankList, ref
from embedfleet_server.config import Limits
from embedfleet_server.engine.errors import InvalidRequest, ItemError, TooLarge
from embedfleet_server.engine.protocols import Pair, Rows
from embedfleet_server.engine.scoring import scores

_QUERY = Field(
    lambda value: isinstance(value, str) and value != "",
    "must be a string that is not empty",
    {"type": "string", "minLength": 1},
    "What the texts are to answer.",
    required=True,
)
_TEXTS = Field(
    lambda value: isinstance(value, list),
    "must be a list of strings",
    {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
    required=True,
)
_RAW = fields.flag("Give the model's logits, without its activation.")
_CUT: Fields = {"truncate": TRUNCATE, "truncation_direction": DIRECTION, "prompt_name": PROMPT_NAME}
RERANK: Fields = {
    "query": _QUERY,
    "texts": _TEXTS,
    "raw_scores": _RAW,
    "return_text": fields.flag("Give each text back beside its score."),
    **_CUT,
}
"""What `POST /rerank` takes."""
_DOCUMENT: Fields = {"text": fields.text(required=True)}
_DOCUMENTS = Field(
    lambda value: isinstance(value, list),
    "must be a list of strings, or of objects with a text",
    {
        "type": "array",
        "items": {"anyOf": [{"type": "string", "minLength": 1}, fields.schema(_DOCUMENT)]},
        "minItems": 1,
    },
    required=True,
)
COHERE: Fields = {
    "model": MODEL,
    "query": _QUERY,
    "documents": _DOCUMENTS,
    "top_n": fields.positive("How many results to give; all when unset."),
    "return_documents": fields.flag("Give each document back beside its score."),
    "raw_scores": _RAW,
    **_CUT,
    "user": fields.text("Taken and not used; a request's tenant is told by its key."),
}
"""What `POST /v1/rerank` takes."""
_FILE = {answers.NPY: {"type": "string", "format": "binary"}}
RANKS: Content = {"application/json": ref(Ranks), **_FILE}
"""What `POST /rerank` gives."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """A request to put texts in order; `texts` as they are given back."""

    asked: EmbeddingRequest
    texts: Sequence[Any]
    raw: bool
    returns: bool
    top: int | None = None


def routes(door: Door) -> list[Route]:
    """The rows of Cohere's dialect; those of text-embeddings-inference stand in `tei`."""
    doors = Rerank(door)
    about = "Documents by how well they answer a query, best first, by a Rerank model."
    return [
        Route(
            method="POST",
            path=path,
            name=name,
            handler=doors.cohere,
            dialect="OpenAI",
            about=about + " `Accept: application/x-npy` gives the scores in the documents' order.",
            gives={"application/json": ref(RerankList), **_FILE},
            takes=COHERE,
            example={"query": "a text", "documents": ["another", "a third"]},
            headers=PARTIAL_HEADER,
        )
        for path, name in (("/v1/rerank", "rerank_v1"), ("/v2/rerank", "rerank_v2"))
    ]


class Rerank:
    """The handlers."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def tei(self, request: web.Request) -> web.Response:
        """`POST /rerank`."""
        model = request.match_info.get("model")
        return await self._answer(request, lambda raw: self._tei_request(decode(raw), model), _tei_body)

    async def cohere(self, request: web.Request) -> web.Response:
        """`POST /v1/rerank`."""
        return await self._answer(request, lambda raw: self._cohere_request(decode(raw)), _cohere_body)

    async def _answer(self, request: web.Request, parse: Callable[[bytes], Ranking], write: "Write") -> web.Response:
        set_aside, scheduled = is_partial(request), self._door.scheduled(request)
        ranking = await self._door.read(request, parse)
        made = await self._door.embed(request, ranking.asked, scheduled, set_aside=set_aside)
        kind: Literal["json", "npy"] = "npy" if answers.accepts(request.headers.get("Accept"), answers.NPY) else "json"
        large = len(made.rows) > _LARGE or ranking.returns
        return await self._door.tell(lambda: encode(made, ranking, kind, write), large=large)

    def _tei_request(self, document: dict[str, Any], model: str | None) -> Ranking:
        fields.check(document, RERANK)
        asked = _asked(document, document["texts"], "texts", model, self._door)
        return Ranking(
            asked, document["texts"], document.get("raw_scores") is True, document.get("return_text") is True
        )

    def _cohere_request(self, document: dict[str, Any]) -> Ranking:
        fields.check(document, COHERE)
        texts = [_text(index, one) for index, one in enumerate(document["documents"])]
        asked = _asked(document, texts, "documents", document.get("model"), self._door)
        returns = document.get("return_documents") is True
        return Ranking(asked, texts, document.get("raw_scores") is True, returns, document.get("top_n"))


def encode(made: Outcome, ranking: Ranking, kind: Literal["json", "npy"], write: "Write") -> answers.Encoded:
    """The answer: scores in the order of the texts as a file, or results in JSON, best first."""
    found = scored(made, raw=ranking.raw)
    headers = answers.headers(made)
    if kind == "npy":
        return answers.Encoded(answers.npy(found), answers.NPY, headers | answers.errors_headers(made))
    best = order(found, made.errors)
    return answers.Encoded(*write(made, ranking, found, best, headers))


def scored(made: Outcome, *, raw: bool) -> Rows:
    """The score of each text, shape (n,), NaN where there is none."""
    return scores(made.rows, "Identity" if raw else made.info.activation)


def order(found: Rows, errors: Mapping[int, ItemError]) -> list[int]:
    """The texts that have a score, the highest first; equals as they came."""
    ranked: list[int] = np.argsort(-found, kind="stable").tolist()
    return [index for index in ranked if index not in errors]


Write = Callable[[Outcome, Ranking, Rows, list[int], dict[str, str]], tuple[bytes, str, dict[str, str]]]
_LARGE = 2000  # results; their JSON is made in well under a millisecond


def _tei_body(
    made: Outcome, ranking: Ranking, found: Rows, best: list[int], headers: dict[str, str]
) -> tuple[bytes, str, dict[str, str]]:
    results = [
        {"index": index, **({"text": ranking.texts[index]} if ranking.returns else {}), "score": found[index]}
        for index in best
    ]
    return _dumps(results), answers.JSON, headers | answers.errors_headers(made)


def _cohere_body(
    made: Outcome, ranking: Ranking, found: Rows, best: list[int], headers: dict[str, str]
) -> tuple[bytes, str, dict[str, str]]:
    """What the clients of Cohere's API and of Jina's read; `errors` only where bad documents were set aside."""
    results = [
        {
            "index": index,
            "relevance_score": found[index],
            **({"document": {"text": ranking.texts[index]}} if ranking.returns else {}),
        }
        for index in best[: ranking.top]
    ]
    usage = {"prompt_tokens": made.tokens, "total_tokens": made.tokens}
    whole: dict[str, Any] = {"object": "list", "model": made.info.name, "results": results, "usage": usage}
    if made.errors:
        whole["errors"] = item_errors(list(made.errors.values()))
    return _dumps(whole), answers.JSON, headers


def _dumps(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _text(index: int, given: Any) -> Any:
    """A document's text; what is neither a string nor such an object is told of with the other bad ones."""
    if not isinstance(given, dict):
        return given
    try:
        fields.check(given, _DOCUMENT)
    except InvalidRequest as error:
        raise InvalidRequest(f"documents[{index}]: {error}", "documents") from error
    return given["text"]


def _asked(document: Mapping[str, Any], texts: list[Any], name: str, model: str | None, door: Door) -> EmbeddingRequest:
    """Pairs of the query and each text; bad texts keep their places, and are named before a model is asked."""
    query, limits = document["query"], door.limits
    _check_query(query, limits)
    if not texts:
        raise InvalidRequest(f"{name} is an empty list: there is nothing to rank", name)
    if len(texts) > door.engine.max_inputs:
        raise TooLarge(f"{name} holds {len(texts)} entries; one request may carry at most {door.engine.max_inputs}")
    total = len(query) * len(texts) + sum(len(text) for text in texts if isinstance(text, str))
    if total > limits.total_characters:
        raise TooLarge(
            f"the query with each of {name} comes to {total} characters; one request may carry at most "
            f"{limits.total_characters}"
        )
    return EmbeddingRequest(
        items=[Pair(query, text) if isinstance(text, str) else text for text in texts],
        model=model,
        task="Rerank",
        bad=_bad(texts, limits.text_characters),
        **options(document),
    )


def _bad(texts: Sequence[Any], most: int) -> dict[int, ItemError]:
    """Every text that cannot be ranked."""
    strings = {i: text for i, text in enumerate(texts) if isinstance(text, str)}
    wrong = {
        i: ItemError(i, "wrong_type", f"is {kind(text)}; every text here must be a string")
        for i, text in enumerate(texts)
        if i not in strings
    }
    places = list(strings)
    found = bad_items(list(strings.values()), most) if strings else {}
    return wrong | {places[i]: ItemError(places[i], e.code, e.message) for i, e in found.items()}


def _check_query(query: str, limits: Limits) -> None:
    """`InvalidRequest` for a query that no text can be ranked by."""
    for error in bad_items([query], limits.text_characters).values():
        raise InvalidRequest(f"query {error.message}", "query")
