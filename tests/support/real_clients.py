"""Other projects' clients, each as its users write it: `python -m tests.support.real_clients NAME URL KEY`.

Prints one JSON object: the client's version and the vectors of `TEXTS`, or their scores. A process of its own for each,
since these packages bring warnings, event loops and settings of their own.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any

TEXTS = ["a first text", "another one", "the third, with more words"]
QUERY = "which text is it"
Vectors = list[list[float]]
Scores = list[list[Any]]
"""Texts with their scores, best first."""


def openai(url: str, key: str, **options: Any) -> Vectors:
    """OpenAI's own client; it asks for base64 unless told otherwise."""
    client = import_module("openai").OpenAI(base_url=f"{url}/v1", api_key=key)
    assert [model.id for model in client.models.list()] == ["semantic"]
    assert client.models.retrieve("semantic").object == "model"
    answer = client.embeddings.create(model="semantic", input=TEXTS, **options)
    return [entry.embedding for entry in answer.data]


def openai_async(url: str, key: str) -> Vectors:
    """The same, in asyncio."""

    async def main() -> Vectors:
        async with import_module("openai").AsyncOpenAI(base_url=f"{url}/v1", api_key=key) as client:
            answer = await client.embeddings.create(model="semantic", input=TEXTS)
            return [entry.embedding for entry in answer.data]

    return asyncio.run(main())


def hugging_face(url: str, key: str) -> Vectors:
    """`InferenceClient` with the address as its model."""
    client = import_module("huggingface_hub").InferenceClient(model=url, token=key)
    rows = [client.feature_extraction(text, normalize=True, truncate=True) for text in TEXTS]
    scores = client.sentence_similarity(TEXTS[0], other_sentences=TEXTS[1:], model=f"{url}/similarity")
    assert len(scores) == 2
    return [row[0].tolist() for row in rows]


def langchain_openai(url: str, key: str) -> Vectors:
    """LangChain's OpenAI class; its tokenizer would have to be fetched, so it is told to send texts."""
    made = import_module("langchain_openai").OpenAIEmbeddings(
        base_url=f"{url}/v1", api_key=key, model="semantic", check_embedding_ctx_length=False
    )
    assert made.embed_query(TEXTS[0]) == made.embed_documents(TEXTS[:1])[0]
    return _vectors(made.embed_documents(TEXTS))


def langchain_hugging_face(url: str, key: str) -> Vectors:
    """LangChain's Hugging Face endpoint class."""
    made = import_module("langchain_huggingface").HuggingFaceEndpointEmbeddings(model=url, huggingfacehub_api_token=key)
    assert made.embed_query(TEXTS[0]) == made.embed_documents(TEXTS[:1])[0]
    return _vectors(made.embed_documents(TEXTS))


def llama_index_openai(url: str, key: str) -> Vectors:
    """LlamaIndex's OpenAI class; `model_name` is how it takes models that are not OpenAI's."""
    made = import_module("llama_index.embeddings.openai").OpenAIEmbedding(
        model_name="semantic", api_base=f"{url}/v1", api_key=key
    )
    return _vectors(made.get_text_embedding_batch(TEXTS))


def llama_index_tei(url: str, key: str) -> Vectors:
    """LlamaIndex's text-embeddings-inference class."""
    made = import_module("llama_index.embeddings.text_embeddings_inference").TextEmbeddingsInference(
        model_name="semantic", base_url=url, auth_token=key
    )
    assert made.get_query_embedding(TEXTS[0]) == made.get_text_embedding(TEXTS[0])
    return _vectors(made.get_text_embedding_batch(TEXTS))


def llama_index_rerank(url: str, key: str) -> Scores:
    """LlamaIndex's reranker over text-embeddings-inference; its token is sent as it is, so the scheme stands in it."""
    made = import_module("llama_index.postprocessor.tei_rerank").TextEmbeddingInference(
        base_url=url, auth_token=f"Bearer {key}", top_n=len(TEXTS)
    )
    schema = import_module("llama_index.core.schema")
    nodes = [schema.NodeWithScore(node=schema.TextNode(text=text), score=0.0) for text in TEXTS]
    return [[node.text, node.score] for node in made.postprocess_nodes(nodes, query_str=QUERY)]


def cohere(url: str, key: str) -> Scores:
    """Cohere's first client."""
    client = import_module("cohere").Client(api_key=key, base_url=url)
    answer = client.rerank(model="rerank", query=QUERY, documents=TEXTS, return_documents=True, top_n=2)
    assert [result.document.text for result in answer.results] == [TEXTS[result.index] for result in answer.results]
    whole = client.rerank(model="rerank", query=QUERY, documents=TEXTS)
    return [[TEXTS[result.index], result.relevance_score] for result in whole.results]


def cohere_2(url: str, key: str) -> Scores:
    """Cohere's second client."""
    client = import_module("cohere").ClientV2(api_key=key, base_url=url)
    answer = client.rerank(model="rerank", query=QUERY, documents=TEXTS, top_n=len(TEXTS))
    return [[TEXTS[result.index], result.relevance_score] for result in answer.results]


def _vectors(found: Any) -> Vectors:
    return [list(vector) for vector in found]


CLIENTS: dict[str, tuple[str, Callable[[str, str], Vectors]]] = {
    "openai": ("openai", openai),
    "openai-float": ("openai", lambda url, key: openai(url, key, encoding_format="float")),
    "openai-dimensions": ("openai", lambda url, key: openai(url, key, dimensions=8, user="somebody")),
    "openai-async": ("openai", openai_async),
    "huggingface_hub": ("huggingface_hub", hugging_face),
    "langchain-openai": ("langchain-openai", langchain_openai),
    "langchain-huggingface": ("langchain-huggingface", langchain_hugging_face),
    "llama-index-openai": ("llama-index-embeddings-openai", llama_index_openai),
    "llama-index-tei": ("llama-index-embeddings-text-embeddings-inference", llama_index_tei),
}
"""Every client: the distribution it comes in, and its use."""

RERANKERS: dict[str, tuple[str, Callable[[str, str], Scores]]] = {
    "llama-index-tei-rerank": ("llama-index-postprocessor-tei-rerank", llama_index_rerank),
    "cohere": ("cohere", cohere),
    "cohere-v2": ("cohere", cohere_2),
}
"""Every client that ranks `TEXTS` by `QUERY`."""

if __name__ == "__main__":
    name, url, key = sys.argv[1:]
    distribution, ask = (CLIENTS | RERANKERS)[name]
    kind = "vectors" if name in CLIENTS else "scores"
    print(json.dumps({"version": version(distribution), kind: ask(url, key)}))
