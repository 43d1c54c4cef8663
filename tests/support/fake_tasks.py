"""Small models of the other tasks, made of `fake_model`'s vectors."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from embedfleet_server.engine.protocols import Encoded, Item, Model, Pair, Rows, Side
from embedfleet_server.engine.rows import AnyRows, Ragged, SparseRows
from tests.support.fake_model import FakeModel, token_ids, vector


class FakeSparse(FakeModel):
    """The positive half of the vector."""

    def __init__(self, name: str = "sparse") -> None:
        super().__init__(name, task="Sparse", normalized=False, matryoshka=())

    def forward(self, batch: Sequence[Encoded]) -> AnyRows:  # type: ignore[override]
        """As sparse rows."""
        return SparseRows.of(np.maximum(super().forward(batch), 0))


class FakeLate(FakeModel):
    """A vector for each token; of a query one more, as if it were filled up."""

    def __init__(self, name: str = "late") -> None:
        super().__init__(name, task="MultiVector", normalized=False, matryoshka=())

    def encode(
        self, items: Sequence[Item], prompt: str, input_type: str | None = None, side: Side | None = None
    ) -> list[Encoded]:
        """Queries get a token more."""
        made = super().encode(items, prompt, input_type, side)
        return [Encoded([*one.token_ids, 1], one.truncated) for one in made] if input_type == "query" else made

    def forward(self, batch: Sequence[Encoded]) -> AnyRows:  # type: ignore[override]
        """As many vectors as tokens."""
        return Ragged.of([np.stack([vector([token]) for token in one.token_ids]) for one in batch])


class FakeRerank(FakeModel):
    """The first numbers of a pair's vector as its logits."""

    def __init__(self, name: str = "rerank", labels: int = 1) -> None:
        super().__init__(
            name, task="Rerank", normalized=False, matryoshka=(), native_dimensions=labels, dimensions=labels,
            activation="Sigmoid",
        )  # fmt: skip

    def encode(
        self, items: Sequence[Item], prompt: str, input_type: str | None = None, side: Side | None = None
    ) -> list[Encoded]:
        """The query's tokens and the text's."""
        pairs = [item for item in items if isinstance(item, Pair)]
        assert len(pairs) == len(items)
        return super().encode([token_ids(pair.query, prompt) + token_ids(pair.text) for pair in pairs], "", None, side)

    def forward(self, batch: Sequence[Encoded]) -> Rows:
        """(n, labels) float32."""
        return np.stack([vector(one.token_ids) for one in batch])[:, : self.info.native_dimensions]


def logits(query: str, texts: Sequence[str], prompt: str = "") -> Rows:
    """What `FakeRerank` gives each text, shape (n,)."""
    ids = [token_ids(query, prompt) + token_ids(text) for text in texts]
    return np.stack([vector(one[:16]) for one in ids])[:, 0]


def late(text: str, *more: int) -> Rows:
    """What `FakeLate` gives a text, with a vector for each token more."""
    return np.stack([vector([token]) for token in [*token_ids(text)[:16], *more]])


EVERY_TASK: Mapping[str, Callable[[], Model]] = {
    "semantic": FakeModel, "sparse": FakeSparse, "late": FakeLate, "rerank": FakeRerank,
}  # fmt: skip
"""A model of each task, by name; there is no default but by task."""
_BY_ROUTE = {"embed_sparse": "sparse", "embed_all": "late", "rerank": "rerank"}


def task_of(path: str) -> str:
    """The model that answers a route."""
    return _BY_ROUTE.get(path.rpartition("/")[2], "semantic")
