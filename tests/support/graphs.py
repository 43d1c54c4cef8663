"""Pipelines in few words, for tests."""

from typing import Any

from embedfleet.api import Pipeline

Plain = dict[str, Any]


def step(name: str, *sources: str, **operation: Any) -> Plain:
    """A step that reads `sources` (the input, when none is given)."""
    return {"name": name, **operation, "from": [*(sources or ("input",))]}


def embed(name: str, *sources: str, model: str = "semantic", **more: Any) -> Plain:
    """A step that embeds."""
    return step(name, *sources, embed={"model": model, **more})


def pipeline(*steps: Plain, outputs: list[str] | None = None, **more: Any) -> Pipeline:
    """The pipeline `index` of these steps; the last is its output unless `outputs` says otherwise."""
    given = {"name": "index", "steps": [*steps], "outputs": outputs or [steps[-1]["name"]], **more}
    return Pipeline.model_validate(given)
