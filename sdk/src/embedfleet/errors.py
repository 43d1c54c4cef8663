"""Everything that the SDK raises on purpose; the original is chained with `from`.

EmbedfleetError
├── BadInput             yours: some of the texts; every bad index known is listed
├── RequestRejected      yours: the request as a whole (a dimension the model cannot give, a wrong key)
│   └── ModelNotFound    no model of that name; the message lists those there are
├── ManifestInvalid      yours: every mistake of the manifest in one go
├── ServiceNotFound      nothing of that name; says what exists and where it looked
│   └── AmbiguousName    several have a model of that name
├── ServiceUnavailable   the server's or the network's: no answer in spite of retries
│   └── Refused          the server said "not now" for longer than the client is patient; nothing was accepted
├── ClusterError         about the cluster, not the service
│   ├── NoCluster            no kubeconfig and no pod, or a kubeconfig that cannot be used
│   ├── ClusterUnavailable   the API server does not answer (a ServiceUnavailable too)
│   ├── LoginFailed          the API server does not know us: expired, refused, or the login plug-in failed
│   ├── Forbidden            it knows us and does not allow it; `rule` is what a role must have
│   └── ClusterRefused       it refuses the request or the object
│       └── ObjectMissing        there is no such object
├── TimedOut             the `timeout` given to the call passed
├── ServerFailed         the server's: the work was accepted, then failed
├── ProtocolError        what answered is no embedfleet server, or an answer of it is broken
│   └── ModelChanged     vectors of two models would have been mixed
├── ResumeRefused        yours: `embed_to` into a directory whose vectors would not fit those to come
├── ExtraMissing         yours: an optional package; the message says what to install
├── ServerNotInstalled   `embedfleet serve` without the server's packages
├── AlreadyRunning       `embedfleet serve` of a service that runs here already
└── ClientClosed         yours: used after `close()`, or from a second event loop
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedfleet.api import Problem

__all__ = [
    "AlreadyRunning",
    "AmbiguousName",
    "BadInput",
    "ClientClosed",
    "ClusterError",
    "ClusterRefused",
    "ClusterUnavailable",
    "EmbedfleetError",
    "ExtraMissing",
    "Forbidden",
    "InputError",
    "LoginFailed",
    "ManifestInvalid",
    "ModelChanged",
    "ModelNotFound",
    "NoCluster",
    "ObjectMissing",
    "ProtocolError",
    "Refused",
    "RequestRejected",
    "ResumeRefused",
    "ServerFailed",
    "ServerNotInstalled",
    "ServiceNotFound",
    "ServiceUnavailable",
    "TimedOut",
]

_SHOWN = 5
_SHOWN_CHARACTERS = 60


def shortened(text: str, most: int = _SHOWN_CHARACTERS) -> str:
    """The beginning of `text`, in `most` characters; by default as long as fits into a message."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


class EmbedfleetError(Exception):
    """Base of every error of this package."""


@dataclass(frozen=True, slots=True)
class InputError:
    """What is wrong with the text at `index`, counted over all the texts of the call."""

    index: int
    code: str
    message: str
    text: str | None = field(default=None, compare=False)
    """The beginning of the text, where it is one."""

    def __str__(self) -> str:
        told = f"texts[{self.index}]: {self.message}"
        return f"{told} (the text: {self.text!r})" if self.text else told

    def at(self, index: int) -> "InputError":
        """The same trouble of the text at another place."""
        return replace(self, index=index)

    def about(self, text: str) -> "InputError":
        """The same trouble, with the beginning of the text told."""
        return replace(self, text=shortened(text))


class BadInput(EmbedfleetError, ValueError):
    """Texts that cannot be embedded. `errors` lists each; `indexes` are their places in the call."""

    def __init__(self, message: str, errors: Sequence[InputError] = ()) -> None:
        super().__init__(message)
        self.errors = tuple(errors)

    @property
    def indexes(self) -> list[int]:
        """Places of the bad texts in the call."""
        return [error.index for error in self.errors]

    @classmethod
    def of(cls, errors: Sequence[InputError]) -> "BadInput":
        """The error for these texts, the first few spelt out."""
        return cls("; ".join(map(str, errors[:_SHOWN])) + _more(len(errors)), errors)


class RequestRejected(EmbedfleetError, ValueError):
    """The server cannot do what was asked, now or later. `code` is the wire's stable code."""

    def __init__(self, message: str, code: str = "invalid_request", status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class ModelNotFound(RequestRejected):
    """The service has no model of that name."""

    def __init__(self, message: str, code: str = "model_not_found", status: int = 404) -> None:
        super().__init__(message, code, status)


class ManifestInvalid(EmbedfleetError, ValueError):
    """A manifest with mistakes; `problems` lists every one."""

    def __init__(self, message: str, problems: "Sequence[Problem]" = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)

    @classmethod
    def of(cls, source: str, problems: "Sequence[Problem]") -> "ManifestInvalid":
        """The error for the manifest `source`, one line a mistake."""
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        return cls("\n".join([f"{source} has {count}:", *(f"  {problem}" for problem in problems)]), problems)


class ServiceNotFound(EmbedfleetError, LookupError):
    """Nothing of that name; `looked` says where, `found` what is there instead."""

    def __init__(self, message: str, looked: Sequence[str] = (), found: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.looked = tuple(looked)
        self.found = tuple(found)


class AmbiguousName(ServiceNotFound):
    """More than one service answers to it; `found` lists them."""


class ServiceUnavailable(EmbedfleetError, ConnectionError):
    """The server could not be reached, or did not answer."""


class Refused(ServiceUnavailable):
    """The server took nothing on. `code` says why; `retry_after` is its own estimate in seconds."""

    def __init__(self, message: str, code: str = "queue_full", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after


class ClusterError(EmbedfleetError):
    """About the cluster rather than the service."""


class NoCluster(ClusterError, LookupError):
    """No cluster is configured here, or its configuration cannot be used."""


class ClusterUnavailable(ClusterError, ServiceUnavailable):
    """The API server does not answer, or what answers is none."""


class LoginFailed(ClusterError, PermissionError):
    """The API server does not take our credentials, or the login plug-in gave none."""


class Forbidden(ClusterError, PermissionError):
    """The API server does not allow it; `rule` is the YAML of a Role's rule that would."""

    def __init__(self, message: str, rule: str = "") -> None:
        super().__init__(message)
        self.rule = rule


class ClusterRefused(ClusterError, ValueError):
    """The API server refuses the request, or the object that it carries, with HTTP `status`."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class ObjectMissing(ClusterRefused, LookupError):
    """There is no such object."""

    def __init__(self, message: str, status: int = 404) -> None:
        super().__init__(message, status)


class TimedOut(EmbedfleetError, TimeoutError):
    """The call's own `timeout` passed."""


class ServerFailed(EmbedfleetError, RuntimeError):
    """The server took the work on and could not finish it. `code` is `internal` or `deadline_exceeded`."""

    def __init__(self, message: str, code: str = "internal") -> None:
        super().__init__(message)
        self.code = code


class ProtocolError(EmbedfleetError, RuntimeError):
    """An answer that no healthy embedfleet server gives."""


class ModelChanged(ProtocolError):
    """The answers of one call have different fingerprints: their vectors cannot be compared."""


class ResumeRefused(EmbedfleetError, ValueError):
    """The vectors in the directory are of other texts, another model or other options; nothing was changed."""


class ExtraMissing(EmbedfleetError, ImportError):
    """A package that only some extra of embedfleet brings is missing."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package!r}: pip install 'embedfleet[{extra}]'")
        self.extra = extra


class ServerNotInstalled(EmbedfleetError, ImportError):
    """The server's packages are missing."""


class AlreadyRunning(EmbedfleetError, RuntimeError):
    """A server of that service runs on this machine."""


class ClientClosed(EmbedfleetError, RuntimeError):
    """The client is closed, or belongs to another event loop."""


def _more(count: int) -> str:
    return f"; and {count - _SHOWN} more" if count > _SHOWN else ""
