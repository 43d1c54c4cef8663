"""`python -m embedfleet_server.fetch`: the init container that brings the weights of hub models into the store.

Reads the server's own `models.json`. Exit status 0: every required model has its weights; 1: one has not, and the
container's termination message says why; 2: the settings are wrong.
"""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

from embedfleet.api.models import HuggingFaceSource, ModelSpec
from embedfleet.api.termination import TERMINATION_FILE
from embedfleet_server.app import logs
from embedfleet_server.app.settings import WrongSettings, load_models
from embedfleet_server.models.fetching import CannotFetch, Download, Hub, download_from, fetch
from embedfleet_server.termination import leave_word

_log = logging.getLogger("embedfleet.fetch")


def main(arguments: Sequence[str], environ: Mapping[str, str], pause: Callable[[float], None] = time.sleep) -> int:
    """Fetch what `models.json` names; returns the exit status. `pause` waits so many seconds between attempts."""
    given = _parser().parse_args(arguments)
    try:
        models = load_models(given.settings).models
    except WrongSettings as error:
        print(error, file=sys.stderr)
        leave_word(given.termination_log, "SettingsInvalid", str(error))
        return 2
    place = Hub(environ.get("HF_ENDPOINT") or None, environ.get("HF_TOKEN") or None)
    failed = fetch_all(models, given.store.expanduser(), download_from(place), pause)
    required = [(model, cause) for model, cause in failed if model.is_required]
    if not required:
        return 0
    model, cause = required[0]
    leave_word(given.termination_log, cause.code, str(cause), model.name)
    return 1


def fetch_all(
    models: Sequence[ModelSpec], store: Path, download: Download, pause: Callable[[float], None]
) -> list[tuple[ModelSpec, CannotFetch]]:
    """Fetch the weights of all hub models, each repository and revision once; returns the models that lack theirs."""
    tried: dict[tuple[str, str], CannotFetch | None] = {}
    failed = []
    for model in models:
        source = model.source.hugging_face
        if source is None:
            continue
        key = source.repo, source.revision
        if key not in tried:
            tried[key] = _fetched(model.name, source, store, download, pause)
        if (cause := tried[key]) is not None:
            failed.append((model, cause))
    return failed


def _fetched(
    name: str, source: HuggingFaceSource, store: Path, download: Download, pause: Callable[[float], None]
) -> CannotFetch | None:
    began = time.monotonic()
    try:
        snapshot = fetch(source, store, download, pause)
    except CannotFetch as error:
        _log.error("model %s has no weights (%s): %s", name, error.code, error)
        return error
    _log.info("model %s is in the store: %s seconds=%.3f", name, snapshot, time.monotonic() - began)
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m embedfleet_server.fetch", description=__doc__)
    add = parser.add_argument
    add("--settings", type=Path, required=True, help="directory with models.json")
    add("--store", type=Path, required=True, help="local weight store, laid out as the Hugging Face cache is")
    add("--termination-log", type=Path, default=Path(TERMINATION_FILE), help="where to leave the cause (%(default)s)")
    return parser


def _end(number: int, _: FrameType | None) -> None:
    """At once: threads of a download would hold up an orderly end, and what is not whole is never put in place."""
    logs.flush()
    os._exit(128 + number)


if __name__ == "__main__":
    logs.configure(logging.INFO)
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main(sys.argv[1:], os.environ))
