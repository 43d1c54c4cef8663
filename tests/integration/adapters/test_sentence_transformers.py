"""The twin of SentenceTransformer against the package itself: its arguments, its shapes, its numbers."""

import inspect

import numpy as np
import pytest
import sentence_transformers
import torch

from embedfleet import errors
from embedfleet.adapters.sentence_transformers import SentenceTransformer, unit
from tests.support.fake_server import FakeServer, vector, vectors

TEXTS = [f"text {number}" for number in range(300)]


@pytest.fixture
def model(fake: FakeServer) -> SentenceTransformer:
    """The twin, of the service `semantic`."""
    return SentenceTransformer("semantic")


def test_its_arguments_are_those_of_the_package() -> None:
    """Every argument of `encode` exists in the package under that name, in the same order, with the same default."""
    theirs = inspect.signature(sentence_transformers.SentenceTransformer.encode).parameters
    ours = inspect.signature(SentenceTransformer.encode).parameters
    mine = [name for name in ours if name not in ("self", "sentences")]
    assert mine == [name for name in theirs if name in mine]
    assert list(ours)[:2] == ["self", "sentences"]
    assert all(ours[name].default == theirs[name].default for name in mine)
    for name in ("encode_query", "encode_document", "similarity", "similarity_pairwise", "max_seq_length"):
        assert hasattr(sentence_transformers.SentenceTransformer, name)


def test_shapes_and_kinds(model: SentenceTransformer) -> None:
    """As the package gives them: an array by default, a tensor, a list of tensors; one row for a str."""
    assert np.array_equal(model.encode(TEXTS, batch_size=64, show_progress_bar=False), vectors(TEXTS))
    assert np.array_equal(model.encode("a"), vector("a"))
    assert model.encode([]).shape == (0, 8)
    tensor = model.encode(["a", "b"], convert_to_tensor=True, device="cpu")
    assert isinstance(tensor, torch.Tensor)
    assert np.array_equal(tensor.numpy(), vectors(["a", "b"]))
    listed = model.encode(["a", "b"], convert_to_numpy=False)
    assert [type(one) for one in listed] == [torch.Tensor, torch.Tensor]
    assert model.encode("a", convert_to_numpy=False).shape == (8,)


def test_normalised_and_similar(model: SentenceTransformer) -> None:
    """Length 1 where asked for, zeros stay zeros; cosines are those of the package."""
    rows = model.encode(TEXTS[:5], normalize_embeddings=True)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1)
    assert np.array_equal(unit(np.zeros(3, np.float32)), np.zeros(3))
    raw = vectors(TEXTS[:5])
    theirs = sentence_transformers.util.cos_sim(torch.from_numpy(raw), torch.from_numpy(raw[:2])).numpy()
    assert np.allclose(model.similarity(raw, raw[:2]), theirs)
    assert np.allclose(model.similarity_pairwise(raw, raw[::-1]), np.diag(model.similarity(raw, raw[::-1])))


def test_prompts(model: SentenceTransformer, fake: FakeServer) -> None:
    """A prompt's name is the model's own prompt, by the server; a prompt's text is put before each here."""
    model.encode("a", prompt_name="query")
    model.encode_query(["a"])
    model.encode_document(["a"], normalize_embeddings=True)
    model.encode("a", prompt_name="passage")
    assert [one["input_type"] for one in fake.requests] == ["query", "query", "document", "document"]
    assert np.array_equal(model.encode(["a", "b"], prompt="find: "), vectors(["find: a", "find: b"]))
    assert np.array_equal(model.encode("a", prompt="find: "), vector("find: a"))
    assert "input_type" not in fake.requests[-1]


def test_what_the_model_is(fake: FakeServer) -> None:
    """Dimensions and the length of texts, of the model or as truncated."""
    assert SentenceTransformer("semantic").get_sentence_embedding_dimension() == 8
    short = SentenceTransformer("semantic", model="code", truncate_dim=4)
    assert (short.get_embedding_dimension(), short.max_seq_length) == (4, fake.max_tokens)
    assert short.encode("a").shape == (4,)
    assert repr(short) == "SentenceTransformer(service='semantic', model='code', dimensions=4)"


def test_what_a_service_cannot_do_is_told(model: SentenceTransformer, fake: FakeServer) -> None:
    """Another precision, vectors of tokens, a prompt that is not known, a text that is none."""
    with pytest.raises(errors.BadInput, match="precision is 'int8'; a service gives 'float32' alone"):
        model.encode("a", precision="int8")  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(errors.BadInput, match="output_value is 'token_embeddings'"):
        model.encode("a", output_value="token_embeddings")  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(errors.BadInput, match="prompt_name is 'other'; it must be one of query, document"):
        model.encode("a", prompt_name="other")
    with pytest.raises(errors.BadInput, match=r"texts\[1\]"):
        model.encode(["a", None], prompt="p: ")  # type: ignore[list-item]  # that is the mistake
    assert fake.requests == []
