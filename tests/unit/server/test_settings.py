"""Settings and arguments: checked whole, at the start."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from embedfleet.api.models import ModelSpec, Source
from embedfleet.api.settings import ModelSettings
from embedfleet_server.__main__ import configure, guarded, main
from embedfleet_server.app.settings import WrongSettings, load

pytestmark = pytest.mark.requirement("B15")
MODEL = {"name": "semantic", "source": {"path": "weights"}}


def write(directory: Path, models: Any, batching: Any) -> Path:
    for name, value in (("models.json", models), ("batching.json", batching)):
        (directory / name).write_text(value if isinstance(value, str) else json.dumps(value))
    return directory


def problems(directory: Path) -> str:
    with pytest.raises(WrongSettings) as caught:
        load(directory)
    return "\n".join(caught.value.problems)


def test_good_settings(tmp_path: Path) -> None:
    """What is unset has the contract's defaults."""
    settings = load(write(tmp_path, {"service": "fleet", "models": [MODEL]}, {"generation": 3}))
    assert settings.models.service == "fleet"
    in_force = settings.batching.batching
    assert (settings.batching.generation, in_force.sizing, in_force.largest_batch) == (3, "Adaptive", 256)


def test_every_mistake_of_both_files_is_named(tmp_path: Path) -> None:
    """Wrong values of both files and what they disagree on come in one go, each with its place."""
    models = {"service": "fleet", "models": [MODEL, MODEL], "defaultModel": "semantik", "drain": {"requestSeconds": 5}}
    batching = {"batching": {"itemTimeoutSeconds": 30}, "models": {"code": {}}}
    told = problems(write(tmp_path, models, batching))
    assert "'semantic' stands more than once" in told
    assert "did you mean 'semantic'" in told
    assert "batching.json: models is 'code'" in told
    assert "drain.requestSeconds is 5: must be at least batching.itemTimeoutSeconds (30)" in told
    told = problems(
        write(tmp_path, {"service": "x", "models": []}, {"batching": {"maxBatchSize": 0, "maxBatchsize": 1}})
    )
    assert "models.json: models is []" in told
    assert "batching.maxBatchSize is 0" in told
    assert "did you mean 'maxBatchSize'" in told


def test_files_that_are_no_settings(tmp_path: Path) -> None:
    """A missing file and one that is no JSON are both named."""
    (tmp_path / "batching.json").write_text("{")
    told = problems(tmp_path)
    assert "models.json: cannot be read" in told
    assert "batching.json" in told


def test_wrong_settings_exit_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The process ends with status 2 before it listens, its mistakes on stderr."""
    assert main(["--settings", str(write(tmp_path, {}, {}))]) == 2
    assert "models.json: service: is required" in capsys.readouterr().err


def test_configuration_from_arguments_and_environment(tmp_path: Path) -> None:
    """Arguments win, the environment fills in, the observation port follows the public one."""
    environ = {"EMBEDFLEET_STORE": "/store", "HF_HUB_OFFLINE": "1", "XDG_RUNTIME_DIR": str(tmp_path)}
    config = configure(["--settings", "s"], environ)
    assert (config.port, config.observe_port, config.store, config.offline) == (8080, 8081, Path("/store"), True)
    assert (config.runtime, config.threads, config.announce) == (tmp_path / "embedfleet", None, False)
    free = configure(["--settings", "s", "--port", "0", "--threads", "2"], {})
    assert (free.port, free.observe_port, free.threads, free.offline) == (0, 0, 2, False)
    assert free.store == Path.home() / ".cache/embedfleet/weights"


def test_the_pods_name() -> None:
    """As the downward API tells it, else the host's; what is no name of Kubernetes' counts not, nor one of no pod."""
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    names = {
        ("semantic-7d9-x1", None): "semantic-7d9-x1",
        ("node-3", "semantic-7d9-x1"): "semantic-7d9-x1",
        ("a name\r\nX-Evil: 1", None): None,
        (None, None): None,
    }
    for (host, told), name in names.items():
        given = {"HOSTNAME": host, "K8S_POD": told}
        environ = {key: value for key, value in given.items() if value is not None}
        assert configure(["--settings", "s"], {**pod, **environ}).pod == name
        assert configure(["--settings", "s"], environ).pod is None


def test_the_level_of_the_log() -> None:
    """From the flag, else the environment; else info, and warning where a person reads the banner."""
    levels = {
        (): logging.INFO,
        ("--announce",): logging.WARNING,
        ("--announce", "--log-level", "DEBUG"): logging.DEBUG,
        ("--log-level", "error"): logging.ERROR,
    }
    for arguments, level in levels.items():
        assert configure(["--settings", "s", *arguments], {}).log_level == level
    told = {"EMBEDFLEET_LOG_LEVEL": "debug"}
    assert configure(["--settings", "s", "--announce"], told).log_level == logging.DEBUG
    assert configure(["--settings", "s", "--log-level", "info"], told).log_level == logging.INFO


def test_the_time_for_compilation() -> None:
    """From the flag, else the environment; else two minutes, of which the operator's startup probe waits many."""
    assert configure(["--settings", "s"], {}).compile_seconds == 120
    told = {"EMBEDFLEET_COMPILE_SECONDS": "300"}
    assert configure(["--settings", "s"], told).compile_seconds == 300
    assert configure(["--settings", "s", "--compile-seconds", "0"], told).compile_seconds == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--settings", "s", "--compile-seconds", "4000"],
        ["--settings", "s", "--port", "70000"],
        ["--settings", "s", "--threads", "0"],
        ["--settings", "s", "--log-level", "loud"],
    ],
)
def test_wrong_arguments_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Arguments are refused with what they must be."""
    with pytest.raises(SystemExit) as caught:
        configure(arguments, {})
    assert caught.value.code == 2
    assert "--" in capsys.readouterr().err


def test_settings_name_the_guards_where_no_flag_does() -> None:
    """`apiKeysDirectory` and `tlsDirectory` of models.json hold unless a flag names another."""
    model = ModelSpec(name="semantic", source=Source(path="weights"))
    models = ModelSettings(service="fleet", models=[model], api_keys_directory="/keys", tls_directory="/tls")
    made = guarded(configure(["--settings", "s", "--tls", "mine"], {}), models)
    assert (made.api_keys, made.tls) == (Path("/keys"), Path("mine"))
    bare = guarded(configure(["--settings", "s"], {}), models.model_copy(update={"api_keys_directory": None}))
    assert (bare.api_keys, bare.tls) == (None, Path("/tls"))
