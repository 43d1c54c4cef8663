"""What a container of a server pod leaves behind when it ends by its own decision: one line of JSON for the operator.

Kubernetes keeps what a container writes to its termination message (4096 bytes at most) in the pod's status.
"""

import json
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from embedfleet.api.base import ContractModel

TERMINATION_FILE = "/dev/termination-log"
"""Where Kubernetes looks for the message, unless a pod says otherwise."""
_MOST_BYTES = 4096  # what Kubernetes keeps of one container's message

Code = Literal[
    "WeightsMissing",
    "DigestMismatch",
    "HubUnreachable",
    "HubRefused",
    "CacheFull",
    "ModelLoadFailed",
    "SettingsInvalid",
    "DeviceLost",
]
"""Each is a reason of docs/operations.md too."""


class Termination(ContractModel):
    """Why a container ended itself."""

    code: Code
    """The cause, as a word that programs read."""
    message: Annotated[str, Field(max_length=4096)]
    """The cause, for people."""
    model: Annotated[str, Field(max_length=63)] | None = None
    """The model it is about."""

    def to_line(self) -> str:
        """What to write to `TERMINATION_FILE`; a message too long for Kubernetes is cut."""
        line = json.dumps(self.model_dump(exclude_none=True), ensure_ascii=False)
        if len(line.encode()) <= _MOST_BYTES:
            return line
        return self.model_copy(update={"message": self.message[: len(self.message) * 3 // 4]}).to_line()


def parse(text: str) -> Termination | None:
    """The message of `text`, which may be the end of a log instead; None when it is none."""
    try:
        return Termination.model_validate_json(text.strip())
    except ValidationError:
        return None
