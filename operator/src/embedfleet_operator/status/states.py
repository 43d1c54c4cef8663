"""The condition types, and the reasons of a service that is well or on its way; docs/operations.md is made of both."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConditionType:
    """A type of condition and what its two answers mean."""

    name: str
    true: str
    false: str


TYPES = (
    ConditionType(
        "Ready",
        "The newest spec is served whole: every pod is of it, ready, and runs its batching values.",
        "Not yet, or no longer; the reason is the most important cause.",
    ),
    ConditionType(
        "Available",
        "At least one pod takes requests, be it of an older spec.",
        "Nobody answers requests.",
    ),
    ConditionType(
        "Progressing",
        "The pods are on their way to the newest spec.",
        "They are there, or something is in the way (the reason says which).",
    ),
    ConditionType(
        "RolloutBlocked",
        "Pods of the newest spec cannot take the place of older ones.",
        "No rollout is under way, or it goes on.",
    ),
    ConditionType(
        "ModelsLoaded",
        "Every required model is loaded in every pod that answers.",
        "One is not; the message has the server's words. Unknown: no pod answers.",
    ),
    ConditionType(
        "Degraded",
        "The service is less than was asked for: fewer pods, a model missing, a server unwell.",
        "Nothing of the kind is seen.",
    ),
)

READY, AVAILABLE, PROGRESSING, BLOCKED, LOADED, DEGRADED = (kind.name for kind in TYPES)

STATES = {
    "Serving": "Every pod serves the newest spec.",
    "Applying": "The operator has written the newest spec, or is about to, and the cluster has yet to take it up.",
    "Starting": "First pods are starting: images are pulled, weights fetched, models loaded.",
    "RollingOut": "New pods take the place of old ones; each old one leaves once a new one is ready.",
    "WaitingForCapacity": "A new pod finds no room; until `rollout.waitForCapacitySeconds` a cluster may add a node.",
    "DrainingFirst": "No room for one more pod, or a volume that one node holds: an old pod leaves before its successor"
    " starts. Requests may be refused meanwhile, none is lost.",
    "SettingsPending": "Batching values have changed and not every pod has taken them up yet.",
    "PodsNotReady": "Pods of the newest spec are there and some are not ready.",
    "Suspended": "`spec.suspend` is true: there are to be no pods.",
    "ScaledToZero": "`spec.replicas` is 0: there are to be no pods.",
    "PodsReady": "So many pods take requests.",
    "NoPods": "No pod takes requests.",
    "NotRolling": "Nothing is being replaced.",
    "RolloutProceeds": "New pods take the place of old ones.",
    "ModelsReady": "Every required model is loaded.",
    "ModelsLoading": "A required model is not loaded yet.",
    "NoAnswer": "No pod answers on its observation port.",
    "AsAsked": "Nothing is less than was asked for.",
}
"""Reasons that are no causes of trouble."""
