"""From a recipe to an image in the user's cache: what is there is taken, what is not is built.

    CACHE/base/…                 the base of own builds
    CACHE/LABEL-KEY/             an image as a Dockerfile made it, by what its lower layers are made of
    CACHE/LABEL-KEY/code-KEY/    another last layer for it, made of newer sources

So a change of our packages takes seconds, and one of constraints.txt minutes.
"""

import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tools.images import base, daemon, last_layer, layout
from tools.images.engine import PUBLISHED_BASE, Engine, running
from tools.images.recipes import Recipe

HOST = "test.local"
"""Of the names that images have in archives: not a registry, so that nothing is ever pulled."""

_KEEP_SECONDS = 14 * 24 * 3600
_ALWAYS = ("base", "stores")
_VERSION, _REVISION = "org.opencontainers.image.version", "org.opencontainers.image.revision"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Built:
    """An image in the cache."""

    recipe: Recipe
    image: layout.Image
    folder: Path
    """Of the layers below the last one, and of whatever is derived of them."""
    code_key: str

    @property
    def name(self) -> str:
        """`host/name:tag`; the tag changes with what is in the image."""
        return f"{HOST}/{self.recipe.name}:{self.folder.name.rpartition('-')[2][:6]}{self.code_key[:6]}"

    @property
    def base_name(self) -> str:
        """What its lower layers are called where they are kept as an image of their own."""
        return f"{HOST}/{self.folder.name}:layers"

    @property
    def sbom(self) -> bytes:
        """Its bill of materials: CycloneDX, JSON."""
        return layout.files(self.image.last)[last_layer.SBOM]

    def write(self, target: Path) -> Path:
        """Write the whole image to the archive `target`, for `docker load`, `kind load image-archive`, `ctr import`."""
        return self.image.write(target, self.name)

    def write_last_layer(self, target: Path) -> Path:
        """The same without the lower layers, for a containerd that has `base_name`."""
        return self.image.write(target, self.name, [self.image.last])

    def write_lower_layers(self, stream: IO[bytes]) -> None:
        """The image `base_name`, as an archive."""
        self.image.without_last().write_to(stream, self.base_name)


def say_to_stderr(line: str) -> None:
    """The usual `say`: progress is told, and stays out of what a command prints as its result."""
    print(line, file=sys.stderr, flush=True)


def place() -> Path:
    """Where images are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "embedfleet" / "images"


def build(recipes: Sequence[Recipe], cache: Path | None = None, say: Say = say_to_stderr) -> list[Built]:
    """The images of `recipes` as the sources are now, by one process at a time.

    Raises `CannotBuild` where this machine cannot build one that is missing, and `BuildFailed`.
    """
    folder = cache or place()
    with locked(folder):
        found = running()
        _build_missing([(recipe, _folder(recipe, folder, found)) for recipe in recipes], found, folder, say)
        return [_with_newest_code(recipe, _folder(recipe, folder, found), say) for recipe in recipes]


def _folder(recipe: Recipe, cache: Path, engine: Engine | None) -> Path:
    on = PUBLISHED_BASE if engine else base.name(base.release())
    return cache / f"{recipe.label}-{recipe.runtime_key(on)}"


def _build_missing(asked: Sequence[tuple[Recipe, Path]], engine: Engine | None, cache: Path, say: Say) -> None:
    missing = [(recipe, folder) for recipe, folder in asked if not (folder / "image.json").exists()]
    if not missing:
        return
    _forget_old(cache, time.time(), [folder for _, folder in asked])
    with _engine(engine, cache) as taken:
        for recipe, folder in missing:
            began = time.monotonic()
            say(f"building {recipe.label} into {folder}")
            _build_one(taken, recipe, folder)
            say(f"built {recipe.label} in {time.monotonic() - began:.0f} s")


@contextmanager
def _engine(found: Engine | None, cache: Path) -> Iterator[Engine]:
    if found:
        yield found
        return
    # A short path: it has unix sockets in it. Beside the cache, since the temporary folder may be small.
    with daemon.daemon(cache / f"d{os.getpid()}", cache / "base") as made:
        yield made


def _build_one(engine: Engine, recipe: Recipe, folder: Path) -> None:
    tag = f"{recipe.name}:{recipe.version}{f'-{recipe.variant}' if recipe.variant else ''}"
    variant = {"VARIANT": recipe.variant} if recipe.variant else {}
    engine.build(recipe.dockerfile, recipe.root, tag, {"VERSION": recipe.version, **variant})
    with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
        draft = Path(unfinished) / folder.name
        draft.mkdir()
        layout.keep(engine.save(tag, draft), draft)
        (draft / "code.key").write_text(recipe.code_key(), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)


def _with_newest_code(recipe: Recipe, folder: Path, say: Say) -> Built:
    os.utime(folder)
    image, key = layout.load(folder), recipe.code_key()
    if (folder / "code.key").read_text(encoding="utf-8") == key:
        return Built(recipe, image, folder, key)
    newer = folder / f"code-{key}.tar"
    if not newer.exists():
        began = time.monotonic()
        make_last_layer(recipe, image, newer)
        say(f"new last layer of {recipe.label} in {time.monotonic() - began:.1f} s")
    labels = {_VERSION: recipe.version, _REVISION: ""}
    return Built(recipe, image.with_last(layout.Layer.of(newer), labels), folder, key)


def make_last_layer(recipe: Recipe, image: layout.Image, target: Path) -> layout.Layer:
    """Write the last layer of `recipe`, for the lower layers of `image`, to `target`."""
    dependencies = image.without_last().file(last_layer.DEPENDENCIES)
    draft = target.with_name(f"{target.name}.draft")
    last_layer.make(recipe, dependencies, draft)
    return layout.Layer.of(draft.rename(target))


def _forget_old(cache: Path, now: float, kept: Sequence[Path]) -> None:
    """Images of other sources that nobody asked for lately: each takes gigabytes."""
    for path in cache.iterdir():
        if (
            path not in kept
            and path.is_dir()
            and path.name not in _ALWAYS
            and now - path.stat().st_mtime > _KEEP_SECONDS
        ):
            shutil.rmtree(path)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Alone among all processes that ask for the same `folder`, which is made where it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
