"""What can go wrong in the operator: one tree, so that one table maps it to conditions and retries."""


class OperatorError(Exception):
    """Base of the operator's own errors."""


class CannotRender(OperatorError):
    """The spec is valid, yet no pod can come of it here; `reason` is a reason of docs/operations.md."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class PodTemplateInvalid(CannotRender):
    """`podTemplate` cannot be merged into the pod."""

    def __init__(self, message: str) -> None:
        super().__init__("PodTemplateInvalid", message)


class ManifestUnreadable(OperatorError):
    """A manifest's text is no document that kubectl would take; `reasons` names each mistake in it."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


class NotLeading(OperatorError):
    """A write was to be made by an operator that does not hold the Lease; another one makes it."""


class NoAccess(OperatorError):
    """No way to the API server is configured, or what is configured cannot be read."""


class Unreachable(OperatorError):
    """The API server gives no answer; nothing is known of whether a write was taken."""


class Refused(OperatorError):
    """The API server answered with an error.

    Args:
        code: the HTTP status.
        reason: Kubernetes' word for it, such as AlreadyExists.
        message: the API server's own.
    """

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
