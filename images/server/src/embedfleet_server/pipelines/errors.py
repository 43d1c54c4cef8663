"""What goes wrong within one step of one input; what concerns a whole request is the engine's (`engine/errors.py`)."""


class StepFailed(Exception):
    """A step cannot give its value for this input; `code` is stable, as those of the wire are."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
