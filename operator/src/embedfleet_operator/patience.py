"""Whether a pod that did not answer is to be asked again yet: pure, the clock's reading is an argument.

A pod out of reach costs each pass the whole time-out. It is asked again at once when anything about it has changed,
and else after a wait that doubles with each silence.
"""

from dataclasses import dataclass

_FIRST_SECONDS, _MOST_SECONDS = 1.0, 60.0
"""The wait after a first silence, a hiccup's length; and the most, past two resyncs."""


@dataclass(frozen=True, slots=True)
class _Silence:
    version: str
    until: float
    seconds: float


class Patience:
    """The pods that are silent, by uid; `version` is the pod's resource version."""

    def __init__(self) -> None:
        self._silent: dict[str, _Silence] = {}

    def may_ask(self, uid: str, version: str, now: float) -> bool:
        """Whether the pod is worth a request."""
        known = self._silent.get(uid)
        return known is None or known.version != version or known.until <= now

    def answered(self, uid: str) -> None:
        """The pod gave an answer."""
        self._silent.pop(uid, None)

    def silent(self, uid: str, version: str, now: float) -> None:
        """The pod gave none."""
        known = self._silent.get(uid)
        seconds = min(_MOST_SECONDS, 2 * known.seconds) if known and known.version == version else _FIRST_SECONDS
        self._silent[uid] = _Silence(version, now + seconds, seconds)

    def forget(self, now: float) -> None:
        """Drop pods that nobody has asked for long: they are no more."""
        self._silent = {uid: one for uid, one in self._silent.items() if one.until > now - 2 * _MOST_SECONDS}

    def __len__(self) -> int:
        """How many are known to be silent."""
        return len(self._silent)
