"""What makes a graph fit to run: the contract's rules, and the check of what flows."""

from typing import Any

import pytest
from pydantic import ValidationError

from embedfleet.api import EmbeddingService, Pipeline, problems
from embedfleet.api.pipelines import KnownModel, check
from tests.support.graphs import Plain, embed, pipeline, step

pytestmark = pytest.mark.requirement("G2")

MODELS = {
    "semantic": KnownModel("Dense", 8),
    "sparse": KnownModel("Sparse"),
    "late": KnownModel("MultiVector", 4),
    "judge": KnownModel("Rerank", labels=1),
    "labels": KnownModel("Rerank", labels=3),
    "unknown": KnownModel(),
}
CUT = step("cut", chunk={"by": "Sentences"})
UNIT = step("unit", "dense", normalize={})


def told(*steps: Plain, **more: Any) -> list[str]:
    """What is wrong with a manifest that has this pipeline."""
    one = {"name": "index", "steps": [*steps], "outputs": [steps[-1]["name"]], **more}
    models = [{"name": "semantic", "source": {"path": "w"}}]
    manifest = {"metadata": {"name": "s"}, "spec": {"models": models, "pipelines": [one]}}
    try:
        EmbeddingService.model_validate(manifest)
    except ValidationError as error:
        return [problem.message for problem in problems(error)]
    return []


@pytest.mark.parametrize(
    ("steps", "more", "words"),
    [
        ([embed("dense", "dense")], {}, "from must name input or steps that stand before the step"),
        ([embed("dense", "cut"), CUT], {}, "from must name input or steps that stand before the step"),
        ([embed("dense", "nobody")], {}, "from must name input or steps that stand before the step"),
        ([embed("dense"), embed("dense")], {}, "step names must be unique"),
        ([embed("dense"), UNIT], {"outputs": ["dense"]}, "every step must be in outputs or be read by another step"),
        ([embed("dense")], {"outputs": ["nobody"]}, "outputs must be names of steps"),
        ([embed("input")], {}, "no step may be named input"),
        ([embed("dense", model="nobody")], {}, "must be the name of one of the models"),
        ([step("dense")], {}, "a step must have exactly one of embed, rerank"),
        ([embed("dense") | {"normalize": {}}], {}, "a step must have exactly one of embed, rerank"),
        ([embed("dense"), *(step(f"s{i}", "dense", normalize={}) for i in range(32))], {}, "at most 32 entries"),
        ([step("cut", chunk={"size": 4, "overlap": 4})], {}, "overlap must be less than size"),
        ([embed("dense"), step("q", "dense", quantize={"to": "Binary", "limitThousandths": 1})], {}, "to: Int8 only"),
        ([embed("dense", "input", "input")], {}, "entries must be unique"),
    ],
)
def test_the_rules(steps: list[Plain], more: Plain, words: str) -> None:
    """What the manifest alone shows to be wrong is refused with what must hold."""
    assert any(words in message for message in told(*steps, **more)), told(*steps, **more)


def test_a_sound_graph_has_nothing_to_say() -> None:
    """Every operation, each reading what it can."""
    steps = [
        CUT,
        embed("dense", "cut"),
        UNIT,
        step("both", "dense", "unit", concatenate={}),
        step("short", "both", truncate={"dimensions": 16}),
        step("one", "short", "cut", pool={"by": "Weighted"}),
        step("bits", "one", quantize={"to": "Binary"}),
    ]
    assert told(*steps) == []
    assert check(pipeline(*steps), MODELS) == ()


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([embed("a", model="nobody")], "embed.model is 'nobody': it must be one of the models"),
        (
            [embed("a", model="judge")],
            "needs a model of task Dense, Sparse or MultiVector, and 'judge' is Rerank",
        ),
        ([step("a", rerank={"model": "semantic"})], "rerank needs a model of task Rerank, and 'semantic' is Dense"),
        ([step("a", rerank={"model": "labels"})], "one score a pair, and 'labels' gives 3"),
        (
            [embed("v"), step("a", "v", rerank={"model": "judge"})],
            "rerank must read texts or chunks, and 'v' gives vectors",
        ),
        ([embed("v"), embed("a", "v")], "embed must read texts or chunks, and 'v' gives vectors"),
        ([step("a", normalize={})], "normalize must read vectors or ragged, and 'input' gives texts"),
        (
            [embed("v", model="sparse"), step("a", "v", pool={})],
            "pool must read vectors or ragged, and 'v' gives",
        ),
        ([embed("v"), step("a", "v", truncate={"dimensions": 9})], "it must be at most 8, the length of the vectors"),
        (
            [embed("v"), embed("w", model="late"), step("a", "v", "w", concatenate={})],
            "concatenate must read vectors, and 'w' gives ragged",
        ),
        ([embed("v"), step("a", "v", concatenate={})], "the vectors of two steps or more"),
        (
            [embed("v"), step("w", "v", normalize={}), step("a", "v", "w", normalize={})],
            "read one value, from names 2",
        ),
        ([embed("v"), step("a", "v", pool={"by": "Weighted"})], "pool must read 2 values, from names 1"),
        ([embed("v"), step("q", "v", quantize={"to": "Binary"}), step("a", "q", normalize={})], "'q' gives codes"),
        ([CUT, step("a", "cut", chunk={"by": "Sentences"})], "chunk must read texts, and 'cut' gives chunks"),
        ([step("a", chunk={"by": "Tokens"})], "chunk.model must say whose"),
        ([embed("a", late=True)], "embed.late must read chunks, and 'input' gives texts"),
        ([CUT, embed("a", "cut", model="sparse", late=True)], "embed.late needs a model of task Dense"),
    ],
)
def test_what_does_not_fit(steps: list[Plain], words: str) -> None:
    """Kinds and lengths that do not go together are told with the pipeline's name, the step's, and what must hold."""
    names = [one["name"] for one in steps]
    (found, *others) = check(pipeline(*steps, outputs=names), MODELS)
    assert others == []
    assert (found.pipeline, found.step) == ("index", "a")
    assert words in str(found)


def test_what_is_not_known_yet_is_not_wrong() -> None:
    """A model whose task shows once it is loaded fits everywhere; the mistakes behind a wrong step are not repeated."""
    unknown = [embed("v", model="unknown"), step("a", "v", truncate={"dimensions": 65536})]
    assert check(pipeline(*unknown), MODELS) == ()
    wrong = [embed("v", model="judge"), step("a", "v", normalize={}), step("b", "a", pool={})]
    assert len(check(pipeline(*wrong), MODELS)) == 1


def test_whose_tokens_are_counted() -> None:
    """Those of the model that is named, else of the first that gets the chunks."""
    steps = [step("cut", chunk={}), embed("a", "cut", model="sparse"), embed("b", "cut")]
    made: Pipeline = pipeline(*steps, outputs=["a", "b"])
    assert made.counting_model(made.steps[0]) == "sparse"
    named = pipeline(step("cut", chunk={"model": "late"}), *steps[1:], outputs=["a", "b"])
    assert named.counting_model(named.steps[0]) == "late"
