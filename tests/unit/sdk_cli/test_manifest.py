"""A manifest's text is an `EmbeddingService` or a list of everything that is wrong with it."""

from pathlib import Path

import pytest

from embedfleet.errors import ManifestInvalid
from embedfleet.manifest import load, parse

GOOD = """
apiVersion: embedfleet.dev/v1alpha1
kind: EmbeddingService
metadata: {name: semantic}
spec:
  models:
  - name: semantic
    source: {path: weights/here}
"""
DEEP = "[" * 5000


def wrong(text: str) -> list[str]:
    with pytest.raises(ManifestInvalid) as caught:
        parse(text)
    assert all(f"  {problem}" in str(caught.value).splitlines() for problem in caught.value.problems)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "manifest: is empty"),
        ("# a comment\n", "manifest: is empty"),
        ("---\n", "manifest: is empty"),
        ("- a\n- b\n", "manifest is ['a', 'b']: must be a mapping"),
        ("spec: [\n", "line 2, column 1: is not YAML"),
        ("spec: !!int x\n", "manifest: is not YAML"),
        ("spec: !!python/object:os.system {}\n", "line 1, column 7: is not YAML"),
        ("a: \x07\n", "manifest: is not YAML"),
        (GOOD + "---\na: b\n", "manifest: has a second document, on line 10"),
        (DEEP, "manifest: is nested too deeply"),
        ("a: &a [*a]\n", "manifest: has more than 100000 keys and values"),
    ],
)
def test_what_is_no_manifest_at_all_has_one_problem(text: str, told: str) -> None:
    """Text that holds no single mapping is refused with one problem that says what it is instead, and where."""
    (problem,) = wrong(text)
    assert problem.startswith(told)


def test_aliases_that_multiply_are_refused() -> None:
    """A few lines that stand for a hundred million values are refused before they take any memory."""
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 8)]
    assert wrong("\n".join(lines)) == ["manifest: has more than 100000 keys and values"]


@pytest.mark.requirement("B15")
def test_every_mistake_is_told_at_once() -> None:
    """One look names keys that stand twice, unknown keys with the nearest known one, and each wrong value."""
    text = GOOD + (
        "  replicas: 1\n"
        "  replicas: two\n"
        "  batchin: {}\n"
        "  gpu: {count: -1}\n"
        "  batching: {maxBatchSize: '32', maxWaitMillisecond: 5}\n"
        "kind: Service\n"
    )
    assert set(wrong(text)) == {
        "kind: stands twice, on line 3 and on line 14",
        "spec.replicas: stands twice, on line 9 and on line 10",
        "kind is 'Service': must be 'EmbeddingService'",
        "spec.replicas is 'two': must be a whole number",
        "spec.batchin: is not a known field; did you mean 'batching'?",
        "spec.gpu.count is -1: must be at least 0",
        "spec.batching.maxBatchSize is '32': must be a whole number",
        "spec.batching.maxWaitMillisecond is 5: is not a known field; did you mean 'maxWaitMilliseconds'?",
    }


def test_a_key_that_stands_twice_is_wrong_even_where_all_else_is_right() -> None:
    """YAML's last value would win in silence; the path and both lines are told instead."""
    twice = GOOD.replace("- name: semantic", "- name: other\n    name: semantic")
    assert wrong(twice) == ["spec.models[0].name: stands twice, on line 7 and on line 8"]


def test_a_revision_that_looks_like_a_date_is_text() -> None:
    """`2024-01-02` is the name of a tag, as kubectl reads it too, and no date."""
    source = "{huggingFace: {repo: a/b, revision: 2024-01-02}}"
    service = parse(GOOD.replace("{path: weights/here}", source))
    assert service.spec.models[0].source.hugging_face is not None
    assert service.spec.models[0].source.hugging_face.revision == "2024-01-02"


def test_a_relative_path_is_the_manifests(tmp_path: Path) -> None:
    """A relative `source.path` is looked for from the manifest's folder, an absolute one where it says."""
    more = f"  - {{name: other, source: {{path: {tmp_path}/elsewhere}}}}\n"
    file = tmp_path / "folder" / "manifest.yaml"
    file.parent.mkdir()
    file.write_text(GOOD + more + "  defaultModel: other\n", encoding="utf-8")
    paths = [model.source.path for model in load(file).spec.models]
    assert paths == [str(tmp_path / "folder" / "weights" / "here"), str(tmp_path / "elsewhere")]


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "cannot be read: No such file"), (b"a: \xff", "is not UTF-8: byte 3 is 0xff")],
)
def test_a_file_that_cannot_be_read_is_a_problem_too(tmp_path: Path, content: bytes | None, told: str) -> None:
    """A missing file, or bytes that are no text, are told like any mistake, with the file's name."""
    file = tmp_path / "manifest.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ManifestInvalid, match=told) as caught:
        load(file)
    assert str(file) in str(caught.value)
