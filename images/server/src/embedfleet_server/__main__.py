"""`python -m embedfleet_server --settings DIR`: the process around one server."""

import argparse
import asyncio
import contextlib
import logging
import math
import os
import re
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from embedfleet.api.local import LocalRecord, private_directory, remove_record, runtime_directory, write_record
from embedfleet.api.models import ModelSpec
from embedfleet.api.pipelines import known
from embedfleet.api.pods import Drain
from embedfleet.api.settings import ModelSettings
from embedfleet.api.termination import TERMINATION_FILE
from embedfleet_server import allocator, environment
from embedfleet_server.app import announce, last_words, logs, spans, watching
from embedfleet_server.app.collecting import Collecting
from embedfleet_server.app.control import AlreadyServed, AskedDrain, ControlSocket
from embedfleet_server.app.in_flight import InFlight
from embedfleet_server.app.journal import Journal
from embedfleet_server.app.keys import Keys
from embedfleet_server.app.leaving import lame_duck
from embedfleet_server.app.lifecycle import AT_ONCE, LameDuck
from embedfleet_server.app.memory import host
from embedfleet_server.app.metrics import Metrics
from embedfleet_server.app.server import CannotListen, Server, bracketed
from embedfleet_server.app.settings import Settings, WrongSettings, load
from embedfleet_server.app.signals import StopSignal
from embedfleet_server.app.tls import Tls, WrongPair
from embedfleet_server.app.tuning import Tuning
from embedfleet_server.batching.pressure import Reading
from embedfleet_server.config import Config
from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.errors import DeviceLost, EngineError, ModelLoadFailed
from embedfleet_server.engine.observer import Observer, Several
from embedfleet_server.engine.protocols import Loader, Model
from embedfleet_server.engine.slots import ModelConfig
from embedfleet_server.engine.thread_names import LANE
from embedfleet_server.engine.views import with_view
from embedfleet_server.engine.warming import SECONDS as WARM_UP_SECONDS
from embedfleet_server.engine.workers import ThreadWorkers
from embedfleet_server.pipelines.driver import Pipelines
from embedfleet_server.termination import leave_word

if TYPE_CHECKING:  # an optional extra
    from embedfleet_server.app.tracing import OpenTelemetry

_log = logging.getLogger("embedfleet_server")
LOST = 70
"""Exit status when the device is lost: EX_SOFTWARE of sysexits.h, an error that the server has found in itself."""
_LOST_SECONDS = 3.0  # for the answers to those in flight; with the interpreter's own end it stays under 5 s
_LAST_SPANS = 3.0  # seconds for a collector to take them; a pod's grace period has 10 beside the drain
_LAST_SPANS_WHEN_LOST = 0.5
_TRUE = ("1", "on", "yes", "true")  # what huggingface_hub takes for true in its own variables
_POD = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")  # a DNS subdomain, as RFC 1123 has it
_LEVELS = ("debug", "info", "warning", "error")
LoaderOf = Callable[[ModelSpec], Loader]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a server until a signal ends it; returns the exit status.

    1: it cannot listen, or another process serves the service. 2: the settings are wrong. 70: the device is lost.
    """
    config = configure(sys.argv[1:] if arguments is None else arguments, os.environ)
    os.environ.update(
        environment.variables(os.environ, environment.cores(), environment.quota())
    )  # read when torch is imported
    allocator.keep_freed(os.environ)
    try:
        settings = load(config.settings)
    except WrongSettings as error:
        print(error, file=sys.stderr)
        leave_word(config.termination_log, "SettingsInvalid", str(error))
        return 2
    config = bound(config, settings.models, os.environ)
    return run(config, settings, lambda spec: torch_loader(spec, config, settings))


def bound(config: Config, models: ModelSettings, environ: MutableMapping[str, str]) -> Config:
    """Its threads may be bound to cores where models compute on the CPU; `environ` is told."""
    if (models.gpu_count and environment.has_gpu()) or not environment.can_bind():
        return config
    told = environment.binding(environ, environment.cores(), environment.quota(), config.threads)
    environ.update(told)
    return replace(config, binds_threads=bool(told))


def run(config: Config, settings: Settings, loader_of: LoaderOf) -> int:
    """The process from settings to exit, with models made by `loader_of`; main thread only."""
    config = guarded(config, settings.models)
    logs.configure(config.log_level)
    try:
        traced = tracing_of(spans.plan(settings.models.tracing, config.environment), settings.models.service)
    except CannotTrace as error:
        print(f"error: {error}", file=sys.stderr)
        leave_word(config.termination_log, "SettingsInvalid", str(error))
        return 2
    raise_file_limit()
    stop = StopSignal()
    stop.install()
    try:
        return asyncio.run(_serve(config, settings, loader_of, stop, traced))
    except (CannotListen, AlreadyServed, WrongPair, OSError) as error:  # OSError: the record cannot be written
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        stop.ignore()


def configure(arguments: Sequence[str], environ: Mapping[str, str]) -> Config:
    """The configuration from arguments and environment; wrong arguments exit with status 2."""
    given = _parser(environ).parse_args(arguments)
    observe_port = given.observe_port
    if observe_port is None:
        observe_port = given.port + 1 if given.port else 0
    in_pod = "KUBERNETES_SERVICE_HOST" in environ
    return Config(
        settings=given.settings,
        host=given.host,
        port=given.port,
        observe_port=observe_port,
        store=given.store.expanduser(),
        offline=environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE,
        threads=given.threads,
        compile_seconds=given.compile_seconds,
        api_keys=given.api_keys,
        tls=given.tls,
        in_pod=in_pod,
        pod=_pod(environ) if in_pod else None,
        termination_log=given.termination_log or (Path(TERMINATION_FILE) if in_pod else None),
        journal=given.journal,
        announce=given.announce,
        runtime=given.runtime,
        log_level=_level(given.log_level or ("warning" if given.announce else "info")),
        environment={name: value for name, value in environ.items() if name.startswith("OTEL_")},
    )


def _pod(environ: Mapping[str, str]) -> str | None:
    """The pod's name: as the downward API tells it, which the operator has it do for traces, else the host's name.

    The kubelet gives a pod's host its name, unless the pod is on the node's network or names a host itself. What is
    no name of Kubernetes' goes into no header.
    """
    told = environ.get("K8S_POD") or environ.get("HOSTNAME") or ""
    return told if _POD.fullmatch(told) else None


def torch_loader(spec: ModelSpec, config: Config, settings: Settings) -> Loader:
    """Loads the model of `spec`; torch is imported by the first load, so that the ports listen at once."""

    def loads() -> Model:
        try:
            from embedfleet_server.models.loading import loader
            from embedfleet_server.models.placing import free
        except ImportError as error:
            cause = f"{error}; pip install 'embedfleet-server[models]' brings what models need"
            raise ModelLoadFailed(spec.name, cause) from error
        if config.binds_threads:
            environment.unbind(os.environ)
            free()
        return loader(
            spec, store=config.store, offline=config.offline, gpu_count=settings.models.gpu_count,
            threads=config.threads, room=free_memory, compile_seconds=config.compile_seconds,
            timed=not settings.batching.for_model(spec.name).deterministic,
        )()  # fmt: skip

    return loads


class CannotTrace(Exception):
    """The manifest asks for traces, and there can be none."""


def tracing_of(plan: spans.Plan | None, service: str) -> "OpenTelemetry | None":
    """Tracing as planned; `CannotTrace` where the manifest asks for it and it cannot be had.

    Where only the environment asks, a line in the log says so: it may be set for all processes of a machine.
    """
    if plan is None:
        return None
    try:
        from embedfleet_server.app import tracing

        return tracing.opened(plan, service, version("embedfleet-server"))
    except ImportError as error:
        cause: Exception = error
        why = f"{error}; pip install 'embedfleet-server[tracing]' brings what traces need"
    except ValueError as error:
        cause, why = error, f"a variable of OpenTelemetry (OTEL_…) is wrong: {error}"
    if plan.is_asked:
        raise CannotTrace(f"tracing: {why}") from cause
    _log.warning("OTEL_EXPORTER_OTLP_ENDPOINT is set, and nothing is traced: %s", why)
    return None


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m embedfleet_server", description="The batching embedding server.")
    store = Path(environ.get("EMBEDFLEET_STORE") or "~/.cache/embedfleet/weights")
    runtime = runtime_directory(environ)
    add = parser.add_argument
    add("--settings", type=Path, required=True, help="directory with models.json and batching.json")
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--port", type=_port, default=8080, help="public port; 0 takes a free one (%(default)s)")
    add("--observe-port", type=_port, help="observation port; 0 takes a free one (the public port's next)")
    add("--store", type=Path, default=store, help="local weight store ($EMBEDFLEET_STORE, %(default)s)")
    add("--threads", type=_threads, help="threads of a forward on the CPU (as torch chooses)")
    add(
        "--compile-seconds",
        type=_seconds,
        default=environ.get("EMBEDFLEET_COMPILE_SECONDS") or "120",
        metavar="SECONDS",
        help="for what is compiled of a model while it is loaded on a GPU; 0 compiles nothing "
        "($EMBEDFLEET_COMPILE_SECONDS, 120)",
    )
    add("--runtime", type=Path, default=runtime, help="directory of the records of local servers (%(default)s)")
    add(
        "--api-keys",
        type=Path,
        metavar="DIR",
        help="files of API keys, one for each tenant (as models.json says)",
    )
    add(
        "--tls",
        type=Path,
        metavar="DIR",
        help="directory with tls.crt and tls.key (as models.json says)",
    )
    add("--termination-log", type=Path, help=f"where to leave the cause of an end (in a pod {TERMINATION_FILE})")
    add("--journal", type=Path, help="write each request that is taken and answered to this file, for debugging")
    add(
        "--log-level",
        type=_level_name,
        default=environ.get("EMBEDFLEET_LOG_LEVEL") or None,
        metavar="LEVEL",
        help=f"{', '.join(_LEVELS)}: debug has a line for each request ($EMBEDFLEET_LOG_LEVEL, info; "
        "with --announce warning, since a person reads the banner instead)",
    )
    add("--announce", action="store_true", help="print what runs, and let the SDK find it")
    return parser


def _port(text: str) -> int:
    return _between(text, 0, 65535)


def _threads(text: str) -> int:
    return _between(text, 1, 1024)


def _seconds(text: str) -> float:
    return float(_between(text, 0, 3600))


def _level_name(text: str) -> str:
    if text.lower() not in _LEVELS:
        raise argparse.ArgumentTypeError(f"{text!r} must be one of {', '.join(_LEVELS)}")
    return text.lower()


def _level(name: str) -> int:
    return logging.getLevelNamesMapping()[name.upper()]


def _between(text: str, low: int, high: int) -> int:
    if not text.isdecimal() or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from {low} to {high}")
    return int(text)


async def _serve(
    config: Config, settings: Settings, loader_of: LoaderOf, stop: StopSignal, traced: "OpenTelemetry | None"
) -> int:
    began = time.monotonic()
    metrics, collecting = Metrics(), Collecting()
    in_flight = InFlight(lambda error: _lost(config, error, stop))
    observers = [metrics, collecting, *([] if traced is None else [traced])]
    engine = build_engine(settings, loader_of, observers, in_flight.end)
    journal = None if config.journal is None else Journal(config.journal)
    tuning = Tuning(engine, config.settings)
    keys = None if config.api_keys is None else Keys(config.api_keys)
    tls = None if config.tls is None else Tls(config.tls)
    server = Server(
        engine, metrics, tuning, config.limits,
        keys=keys, tls=tls, in_flight=in_flight, journal=journal, spans=traced,
        pipelines=build_pipelines(settings, engine), pod=config.pod,
    )  # fmt: skip
    ports = await server.start(config.host, config.port, config.observe_port)
    record = _record(config, settings, *ports)
    bound = _bound(record, *server.bound())
    _log.info("listening url=%s observe_url=%s service=%s", *bound, record.service)
    tell = announce.say if config.announce else announce.say_nothing
    watched = [watcher.watch() for watcher in (tuning, keys, tls) if watcher is not None]
    looking = watching.watch(engine, collecting.between)
    told = [] if config.termination_log is None else [last_words.keep(engine, config.termination_log)]
    running = [announce.tell_start(engine, record, bound, began, tell), looking, *watched, *told]
    tasks = [asyncio.create_task(work) for work in running]
    drain = AskedDrain(stop)
    control = ControlSocket(engine, tuning, _socket(config, settings), drain)
    times = AT_ONCE  # what fails here leaves at once
    collecting.start()
    try:
        private_directory(config.runtime)
        await control.start()
        if config.announce:
            write_record(config.runtime, record)
        await stop.wait()
        times = AT_ONCE if in_flight.error else lame_duck_of(settings.models.drain, in_pod=config.in_pod)
    finally:
        leaving = asyncio.create_task(_leave(server, settings.models.drain.request_seconds, times, tell))
        await _until_left(leaving, in_flight)
        for task in tasks:
            task.cancel()
        drain.ended()
        await control.stop()
        collecting.stop()
        if config.announce:
            remove_record(config.runtime, record)
        if traced is not None:
            await traced.stop(_LAST_SPANS_WHEN_LOST if in_flight.error else _LAST_SPANS)
    return LOST if in_flight.error else 0


def _lost(config: Config, error: EngineError, stop: StopSignal) -> None:
    """The device is lost: say so where Kubernetes looks, and leave."""
    leave_word(config.termination_log, "DeviceLost", str(error))
    _log.critical("the device is lost, this process ends: %s", error)
    stop.ask()


async def _until_left(leaving: asyncio.Task[None], in_flight: InFlight) -> None:
    """Until the drain is over; once the device is lost there is nothing to wait for but answers being written."""
    ended = asyncio.create_task(in_flight.ended.wait())
    await asyncio.wait([leaving, ended], return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    if in_flight.error is not None:
        await asyncio.wait([leaving], timeout=_LOST_SECONDS)
        leaving.cancel()
        await asyncio.wait([leaving])
    if not leaving.cancelled():
        leaving.result()


def guarded(config: Config, models: ModelSettings) -> Config:
    """The configuration with the directories of keys and certificate that the settings name, where no flag does."""
    keys, tls = models.api_keys_directory, models.tls_directory
    return replace(
        config,
        api_keys=config.api_keys or (None if keys is None else Path(keys)),
        tls=config.tls or (None if tls is None else Path(tls)),
    )


def lame_duck_of(drain: Drain, *, in_pod: bool) -> LameDuck:
    """How long a leaving server still serves: not at all outside a pod, where nobody routes to it by endpoints."""
    if not in_pod:
        return AT_ONCE
    return LameDuck(propagation=drain.propagation_seconds, quiet=drain.quiet_seconds, most=drain.max_lame_duck_seconds)


def build_engine(
    settings: Settings,
    loader_of: LoaderOf,
    observers: Sequence[Observer],
    on_lost: Callable[[DeviceLost], None] = lambda error: None,
) -> Engine:
    """The engine of these settings; `on_lost` hears when a device is lost."""
    models = {config.name: config for config in _configs(settings, loader_of)}
    return Engine(
        settings.models.service,
        models,
        settings.batching,
        default_model=settings.models.default_model,
        workers=ThreadWorkers(on_lost=on_lost),
        observer=Several(*observers),
        readings=readings,
        warm_up_seconds=WARM_UP_SECONDS,
    )


def build_pipelines(settings: Settings, engine: Engine) -> Pipelines:
    """The pipelines of these settings, over `engine`."""
    told = {spec.name: known(spec) for spec in settings.models.models}
    return Pipelines(engine, settings.models.pipelines or (), told, asyncio.to_thread)


def _configs(settings: Settings, loader_of: LoaderOf) -> Iterator[ModelConfig]:
    """What the engine is told of each model, and of the views that late chunking asks."""
    late = {
        step.embed.model
        for pipeline in settings.models.pipelines or ()
        for step in pipeline.steps
        if step.embed is not None and step.embed.late
    }
    for spec in settings.models.models:
        config = ModelConfig(spec.name, loader_of(spec), lazy=spec.loading == "Lazy", required=spec.is_required)
        yield from with_view(config) if spec.name in late else [config]


def free_memory() -> float:
    """Bytes of the host's memory that are free; without bound on a system that tells nothing."""
    return min((reading.total - reading.used for reading in host().values()), default=math.inf)


def readings() -> Mapping[str, Reading]:
    """How full the memory of the host and of each device is."""
    if "torch" not in sys.modules:  # before the first model is loaded nothing is on a device
        return host()
    from embedfleet_server.models.memory import used_and_total

    return {**host(), **{name: Reading(*found) for name, found in used_and_total().items()}}


def _record(config: Config, settings: Settings, port: int, observe_port: int) -> LocalRecord:
    scheme = "http" if config.tls is None else "https"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)  # noqa: S104  # nosec B104  # what others dial
    return LocalRecord(
        service=settings.models.service,
        pid=os.getpid(),
        url=f"{scheme}://{bracketed(host)}:{port}",
        observe_url=f"http://{bracketed(host)}:{observe_port}",
        socket=str(_socket(config, settings)),
        models=[spec.name for spec in settings.models.models],
    )


def _bound(record: LocalRecord, public: list[str], observe: list[str]) -> tuple[str, str]:
    """The URLs of what is really listened on, where that may be every address of the machine."""
    scheme, _, _ = record.url.partition("://")
    return ",".join(f"{scheme}://{one}" for one in public), ",".join(f"http://{one}" for one in observe)


def _socket(config: Config, settings: Settings) -> Path:
    return config.runtime / f"{settings.models.service}.sock"


async def _leave(server: Server, seconds: float, times: LameDuck, tell: Callable[[str], None]) -> None:
    await lame_duck(server.lifecycle, times)
    _log.info("draining: new requests are refused, accepted ones finished limit_seconds=%d", seconds)
    tell("draining: new requests are refused, accepted ones are finished …")
    farewell = await server.drain(seconds)
    _log.info("drained: %s", farewell)
    tell(f"drained: {farewell}")


def raise_file_limit() -> None:
    """Let the process open as many connections as the system allows: the soft limit is often 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # some systems refuse the hard limit they state
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def leave(status: int) -> NoReturn:
    """End the process; a load or a forward that is still under way cannot be interrupted, and is not waited for."""
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if any(not thread.daemon and not thread.name.startswith(LANE) for thread in others):
        logs.flush()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    leave(main())
