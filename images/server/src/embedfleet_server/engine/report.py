"""What a stop did, as the engine counts it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DrainReport:
    """What a stop did: requests and inputs finished after it began, requests cut off, batches that never ended."""

    finished_requests: int
    finished_inputs: int
    refused: int
    failed: int
    stuck_batches: int


@dataclass(slots=True)
class Since:
    """Counts since admission closed."""

    requests: int = 0
    inputs: int = 0
    refused: int = 0
    failed: int = 0
