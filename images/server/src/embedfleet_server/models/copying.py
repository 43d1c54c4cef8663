"""The copies of a model on further devices: the same weights, in the precision that was chosen on the first."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from embedfleet_server.engine.copies import joined
from embedfleet_server.engine.errors import DeviceLost
from embedfleet_server.engine.protocols import Model
from embedfleet_server.engine.rows import AnyRows
from embedfleet_server.models import self_test
from embedfleet_server.models.choosing import Build
from embedfleet_server.models.device import current
from embedfleet_server.models.faults import meaning
from embedfleet_server.models.problems import ModelProblem


def copied(first: Model, builds: Mapping[str, Build], finish: Callable[[Model], Model] = lambda model: model) -> Model:
    """`first` with a copy on each further device, made by that device's function, in the order of `builds`.

    What is done with a model last, `finish` does with each.

    A copy that fails fails the model: `ModelProblem` names its device, and what was loaded is given back. Each must
    give the first one's rows for the known inputs, as close as its precision has to be.
    """
    if not builds:
        return finish(first)
    made = [first]
    try:
        expected = _rows(first)
        for device, build in builds.items():
            with _named(device), current(device):
                made.append(build(first.info.precision))
                _check(made[-1], first, expected)
    except BaseException:
        for model in made:
            model.close()
        raise
    return joined([_finished(model, finish) for model in made])


def _finished(model: Model, finish: Callable[[Model], Model]) -> Model:
    with current(model.info.device):
        return finish(model)


@contextmanager
def _named(device: str) -> Iterator[None]:
    """What fails inside is told with the device; `DeviceLost` where it is lost to the process."""
    try:
        yield
    except ModelProblem as problem:
        raise ModelProblem(f"its copy on {device}: {problem}") from problem
    except Exception as error:
        if isinstance(lost := meaning(error), DeviceLost):
            raise lost from error
        raise ModelProblem(f"its copy on {device}: {type(error).__name__}: {error}") from error


def _check(model: Model, first: Model, expected: AnyRows) -> None:
    """`ModelProblem` where the copy is not the first one."""
    if model.info.fingerprint != first.info.fingerprint:
        raise ModelProblem("its files changed while the model was loaded")
    cosine = self_test.close(first.info.task, _rows(model), expected)
    if not self_test.is_close(cosine, first.info.precision):
        raise ModelProblem(f"it has a cosine of {self_test.shown(cosine)} to the rows of {first.info.device}")


def _rows(model: Model) -> AnyRows:
    return model.forward(self_test.encoded(model, self_test.items(model.info.task)))
