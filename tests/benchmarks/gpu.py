"""A BERT of base size on a GPU, made from its configuration: the bare forward, and over HTTP.

`python -m tests.benchmarks.gpu` measures this part alone and needs no model from elsewhere; without a GPU it says so.
"""

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from tests.benchmarks import hardware, ours
from tests.benchmarks.child import Child
from tests.benchmarks.report import Section, milliseconds, show
from tests.support.texts import mixed_texts, stdlib_words

Say = Callable[[str], None]
_NAME = "base"
_WORDS = 400
"""Of a text: more than 512 tokens of the made tokenizer, which takes most words apart into letters."""
_MANIFEST = """\
apiVersion: embedfleet.dev/v1alpha1
kind: EmbeddingService
metadata:
  name: {name}
spec:
  models:
  - name: {name}
    source: {{path: {directory}}}
    dtype: Auto
  gpu: {{count: {gpus}}}
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a BERT."""

    layers: int = 12
    width: int = 768
    inner: int = 3072
    heads: int = 12
    tokens: int = 512
    words: int = 30_522


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much is measured: texts of the longest length in the bare forward and over HTTP, and requests one by one."""

    bare: int = 1024
    served: int = 2048
    alone: int = 100


def machine() -> Section:
    """What the part was measured on, when nothing else is."""
    return Section("The machine", ("what", "value"), list(hardware.describe().items()))


def measure(
    say: Say, repetitions: int, *, gpus: int = 1, shape: Shape | None = None, amounts: Amounts | None = None
) -> Section:
    """Each kind of text, bare and served. `gpus` 0 takes the CPU, for a test of this program with a tiny `shape`."""
    shape, amounts = shape or Shape(), amounts or Amounts()
    section = Section(
        f"A BERT of {shape.layers} layers of {shape.width} on a GPU, dtype Auto", ("what", "subject", "measured")
    )
    with Child("tests.benchmarks.made") as child, tempfile.TemporaryDirectory(prefix="embedfleet-gpu-") as folder:
        found = child.ask("device")
        if gpus and "missing" in found:
            section.notes.append(f"not measured: {found['missing']}")
            return section
        section.notes.append(found["name"] if gpus else "computed on the CPU")
        directory = child.ask("bert", folder=folder, **asdict(shape))["directory"]
        section.rows += _bare(say, directory, gpus, repetitions, shape, amounts, section.notes.append)
        section.rows += _served(say, directory, gpus, repetitions, shape, amounts)
    return section


def _bare(
    say: Say, directory: str, gpus: int, repetitions: int, shape: Shape, amounts: Amounts, note: Say
) -> Iterator[Sequence[str]]:
    """Batches of 64, tokenised before: texts of the longest length, and mixed ones, packed and padded."""
    mixes = {f"{shape.tokens} tokens each": long(amounts.bare), "mixed lengths": mixed_texts(amounts.bare)}
    with Child("tests.benchmarks.loaded", directory, str(gpus)) as loaded:
        for padded in (False, True):
            info = loaded.ask("load", dtype="Auto", padded=padded)
            subject = f"bare forward, {info['precision']}, {info['layout']}, {info['device']}"
            if not padded:
                note(f"{info['precision']}: {info['precision_reason']}; {info['layout']}: {info['layout_reason']}")
            for mix, texts in mixes.items():
                asked = {"dtype": "Auto", "padded": padded, "texts": texts}
                loaded.ask("forward", **asked)
                taken = [loaded.ask("forward", **asked) for _ in range(repetitions)]
                rates = sorted(one["tokens"] / one["seconds"] for one in taken)
                yield (mix, subject, f"{median(rates):,.0f} tokens/s ({rates[0]:,.0f} to {rates[-1]:,.0f})")
                say(f"gpu: {mix}, {subject}: {median(rates):,.0f} tokens/s")


def _served(
    say: Say, directory: str, gpus: int, repetitions: int, shape: Shape, amounts: Amounts
) -> Iterator[Sequence[str]]:
    """Requests of texts of the longest length, none twice: at saturation, and one after the other."""
    texts = long(amounts.served)
    manifest = _MANIFEST.format(name=_NAME, directory=directory, gpus=gpus)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ours.running(manifest))
        clients = stack.enter_context(Child("tests.benchmarks.clients"))

        def asked(clients_: int, size: int, some: Sequence[str]) -> dict[str, Any]:
            given = {"url": server.url, "model": _NAME, "clients": clients_, "size": size, "wanted": "npy"}
            return clients.ask("pattern", texts=some, **given)

        asked(1, 64, fresh(texts[:64], "warm"))
        kinds = {"one text": (1, amounts.alone), "64 texts": (64, max(64, 16 * amounts.alone))}
        for kind, (size, count) in kinds.items():
            found = asked(1, size, fresh(long(count), kind))
            yield (f"{kind} of {shape.tokens} tokens", "over HTTP, p50", milliseconds(found["p50"]))
            say(f"gpu: {kind} over HTTP, p50 {milliseconds(found['p50'])}")
        taken = [asked(8, 64, fresh(texts, f"turn {turn}"))["seconds"] for turn in range(repetitions)]
        rate = median(len(texts) * shape.tokens / seconds for seconds in taken)
        yield (f"{shape.tokens} tokens each", "over HTTP, 8 clients x 64 texts", f"{rate:,.0f} tokens/s")
        say(f"gpu: over HTTP {rate:,.0f} tokens/s")


def long(count: int) -> list[str]:
    """Texts that the model cuts at its longest input."""
    words = stdlib_words()
    starts = (97 * place % (len(words) - _WORDS) for place in range(count))
    return [" ".join(words[start : start + _WORDS]) for start in starts]


def fresh(texts: Sequence[str], mark: str) -> list[str]:
    """The same texts with a beginning of their own, so that no vector is already known."""
    return [f"{mark} {place} {text}" for place, text in enumerate(texts)]


if __name__ == "__main__":
    show(machine(), measure(lambda line: print(line, file=sys.stderr, flush=True), repetitions=3))
