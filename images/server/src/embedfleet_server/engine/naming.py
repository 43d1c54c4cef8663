"""Which model a request means. Pure."""

from collections.abc import Mapping

from embedfleet.api.models import Task
from embedfleet_server.engine.errors import ModelNotFound
from embedfleet_server.engine.protocols import ModelInfo


def choose(name: str | None, task: Task | None, known: Mapping[str, ModelInfo | None], default: str) -> str:
    """The model of `known` (None: not loaded) meant by `name`; raises `ModelNotFound` listing those there are.

    Without a name it is `default` where there is such a model, or the only one there is. Where that is of another task
    than `task`, or there is none, it is the only model of that task, as far as models are loaded.
    """
    if name is not None:
        if name not in known:
            raise ModelNotFound(name, tuple(known))
        return name
    own = default if default in known else next(iter(known)) if len(known) == 1 else None
    of_task = [one for one, info in known.items() if info is not None and info.task == task]
    if own is not None and (own in of_task or len(of_task) != 1):
        return own
    if len(of_task) == 1:
        return of_task[0]
    raise ModelNotFound(None, tuple(of_task or known))
