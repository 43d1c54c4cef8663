"""The server's configuration: one frozen object, built in `__main__`; nothing else reads the environment."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a request may bring, and for how long the server waits for it."""

    body_bytes: int = 64 * 1024 * 1024
    """Largest body."""
    text_characters: int = 1_000_000
    """Longest text (and longest list of token ids): far past any model's limit, short of holding a tokenizer up."""
    total_characters: int = 16_000_000
    """Most characters of all texts of a request together (and token ids of all its lists): past any real batch."""
    head_seconds: float = 15.0
    """From the first byte of a request to the end of its headers; then the connection is closed without an answer."""
    body_silence_seconds: float = 30.0
    """Longest pause within a body; then 408."""
    body_bytes_per_second: int = 16 * 1024
    """Least rate of a body once `body_silence_seconds` have passed: a slow phone line, not a dripper."""
    connection_seconds: float = 600.0
    """A connection is retired at this age (10 % more or less), so that new replicas get their share of the clients."""
    keepalive_seconds: float = 75.0
    """An idle connection is closed after this; longer than a proxy's usual 60 s, so that the proxy closes first."""
    lingering_seconds: float = 5.0
    """How long the rest of a refused body is read and dropped, so that the client sees the refusal and not a reset."""
    answer_silence_seconds: float = 60.0
    """How often is looked whether a client reads its answer (as nginx waits for one by default)."""
    answer_bytes_per_second: int = 4 * 1024
    """Least rate at which an answer is read between two looks, or its client is cut off: low, since whoever reads a
    stream of lines may work on each."""
    parting_seconds: float = 1.0
    """How long who has got a connection as the last ones may take to send the request, before the port closes."""
    shutdown_seconds: float = 5.0
    """How long answers may still be written once the engine has stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Where a server finds its settings and its weights, and where it listens."""

    settings: Path
    """Directory that holds `models.json` and `batching.json`."""
    host: str = "127.0.0.1"
    port: int = 8080
    """Public port; 0 takes a free one."""
    observe_port: int = 8081
    """Observation port; 0 takes a free one."""
    store: Path
    """Local weight store, laid out as the Hugging Face cache is."""
    offline: bool = False
    """Never ask a hub."""
    threads: int | None = None
    """Threads of a forward on the CPU; None leaves it to torch."""
    binds_threads: bool = False
    """OpenMP has been told to bind them to cores (see `environment`)."""
    compile_seconds: float = 120.0
    """For what is compiled of a model while it is loaded; 0 compiles nothing. The startup probe waits for 1800."""
    api_keys: Path | None = None
    """Directory of key files, one for each tenant; None asks for no key."""
    tls: Path | None = None
    """Directory with `tls.crt` and `tls.key`; None serves plain HTTP."""
    in_pod: bool = False
    """Whether this is a Kubernetes pod: only there does traffic need time to find its way elsewhere."""
    announce: bool = False
    """Print a banner, and write the record by which the SDK finds this server."""
    runtime: Path
    """Directory of that record."""
    log_level: int = logging.INFO
    """The least of what is logged: DEBUG has a line for each request, INFO one for each change of state."""
    pod: str | None = None
    """Name of this pod, which answers carry; None outside of one."""
    termination_log: Path | None = None
    """Where the cause of the process's own end is left for Kubernetes; None tells nobody."""
    journal: Path | None = None
    """Where each request taken and answered is written, for tests of the drain; None writes nothing."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """The variables by which OpenTelemetry is told things (`OTEL_*`), which its SDK reads itself."""
    limits: Limits = field(default_factory=Limits)
