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
