"""What a pod's `/state` answers (port 8081)."""

from dataclasses import dataclass

from embedfleet_operator.observed import plain
from embedfleet_operator.observed.plain import Plain


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """A model as one server reports it."""

    name: str
    state: str = "Unknown"
    """Pending, Loading, Ready or Failed."""
    required: bool = True
    cause: str | None = None
    """Why it could not be loaded, in the server's words."""
    task: str | None = None
    dimensions: int | None = None
    max_tokens: int | None = None
    revision: str | None = None
    fingerprint: str | None = None
    precision: str | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A health finding of a server."""

    code: str
    severity: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """One server's own account."""

    generation: int | None = None
    """Generation of the batching values it runs."""
    ready: bool = False
    rejected_files: int = 0
    """Settings files that it could not use since its start."""
    models: tuple[ModelState, ...] = ()
    findings: tuple[Finding, ...] = ()


def server_state(tree: Plain) -> ServerState:
    """The answer of `/state`."""
    return ServerState(
        generation=plain.number(tree, "generation"),
        ready=plain.flag(tree, "ready"),
        rejected_files=plain.number(tree, "rejected_settings_files") or 0,
        models=tuple(_model(entry) for entry in plain.entries(tree, "models") if plain.text(entry, "name")),
        findings=tuple(_finding(entry) for entry in plain.entries(tree, "health")),
    )


def _model(entry: Plain) -> ModelState:
    return ModelState(
        name=plain.text(entry, "name") or "",
        state=plain.text(entry, "state") or "Unknown",
        required=plain.at(entry, "required") is not False,
        cause=plain.text(entry, "cause"),
        task=plain.text(entry, "task"),
        dimensions=plain.number(entry, "dimensions"),
        max_tokens=plain.number(entry, "max_tokens"),
        revision=plain.text(entry, "revision"),
        fingerprint=plain.text(entry, "fingerprint"),
        precision=plain.text(entry, "precision"),
        device=plain.text(entry, "device"),
    )


def _finding(entry: Plain) -> Finding:
    return Finding(*(plain.text(entry, key) or "" for key in ("code", "severity", "message")))
