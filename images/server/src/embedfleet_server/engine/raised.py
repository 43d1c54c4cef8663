"""What a model may raise from a forward beside `errors.DeviceLost`; `faults` says what each asks for."""


class TransientError(Exception):
    """A fault that may pass."""


class OutOfMemory(Exception):
    """The batch does not fit into the device's memory."""
