"""What keeps a pod from serving: read from its conditions, its containers and the kubelet's events."""

import re
from collections.abc import Iterable, Iterator

from embedfleet_operator import names
from embedfleet_operator.observed import Container, Ended, Event, Pod
from embedfleet_operator.status.causes import CAUSES, Finding

_WAITING = {
    "ErrImageNeverPull": "ImagePullBackOff",
    "ErrImagePull": "ImagePullBackOff",
    "ImageInspectError": "ImagePullBackOff",
    "ImagePullBackOff": "ImagePullBackOff",
    "RegistryUnavailable": "ImagePullBackOff",
    "InvalidImageName": "InvalidImageName",
    "CreateContainerError": "ContainerCannotStart",
    "RunContainerError": "ContainerCannotStart",
    "PostStartHookError": "ContainerCannotStart",
}
"""The kubelet's reasons of a container that waits."""
_STARTING = ("ContainerCreating", "PodInitializing", "")
_MOUNT_EVENTS = ("FailedMount", "FailedAttachVolume")
_SECRET = re.compile(r'(secret "[^"]+" not found|references non-existent secret|failed to sync secret)', re.IGNORECASE)
_SECRET_KEY = re.compile(r"couldn't find key .* in Secret", re.IGNORECASE)
_CONFIG_MAP = re.compile(r'configmap "[^"]+" not found|in ConfigMap', re.IGNORECASE)
_LAST_WORDS = 600  # characters of a container's end that a condition repeats; the log has the rest


def pod_findings(pod: Pod, events: Iterable[Event], resource: str) -> Iterator[Finding]:
    """The causes that hold of one pod; `resource` is the GPU's name."""
    if pod.leaving:
        return
    if pod.phase == "Failed" and pod.reason:
        yield Finding("Evicted" if pod.reason == "Evicted" else "CrashLoopBackOff", f"pod {pod.name}: {pod.message}")
        return
    if pod.unschedulable is not None:
        yield _unschedulable(pod, pod.unschedulable.message, resource)
    for container in pod.containers:
        yield from _container(pod, container)
    if any(one.state == "Waiting" and one.reason in _STARTING for one in pod.containers):
        yield from _mounts(pod, events)


def _unschedulable(pod: Pod, message: str, resource: str) -> Finding:
    words = f"pod {pod.name}: {message}"
    if "persistentvolumeclaim" in message.lower():
        return Finding("ClaimMissing" if '" not found' in message else "ClaimPending", words)
    return Finding("InsufficientGPU" if f"Insufficient {resource}" in message else "Unschedulable", words)


def _container(pod: Pod, container: Container) -> Iterator[Finding]:
    where = f"pod {pod.name}, container {container.name}"
    if container.state == "Waiting" and container.reason in _WAITING:
        yield Finding(_WAITING[container.reason], f"{where}: {container.message or container.reason}")
    elif container.reason == "CreateContainerConfigError":
        yield Finding(_config(container.message), f"{where}: {container.message}")
    elif container.ended is not None and not container.ready and _has_failed(container, container.ended):
        yield _ended(container, container.ended, where)


def _has_failed(container: Container, ended: Ended) -> bool:
    """Whether the end was no success, and is not long past: a container that runs now may be starting well."""
    return ended.exit_code != 0 and (container.state != "Running" or container.restarts > 0)


def _ended(container: Container, ended: Ended, where: str) -> Finding:
    told = ended.termination
    if ended.reason == "OOMKilled":
        return Finding("OOMKilled", f"{where} was killed for using more memory than its limit")
    if told is not None and told.code in CAUSES:
        about = f"model {told.model}: " if told.model else ""
        return Finding(told.code, f"{where}: {about}{told.message}")
    words = ended.message.strip()[-_LAST_WORDS:] or "no last words"
    reason = "WeightsMissing" if container.name == names.FETCH else "CrashLoopBackOff"
    return Finding(reason, f"{where} ended with status {ended.exit_code}: {words}")


def _config(message: str) -> str:
    """Which of the things that a container's variables name is not there."""
    if _SECRET_KEY.search(message):
        return "SecretKeyEmpty"
    if _CONFIG_MAP.search(message):
        return "ConfigMissing"
    return "SecretMissing" if _SECRET.search(message) else "ContainerCannotStart"


def _mounts(pod: Pod, events: Iterable[Event]) -> Iterator[Finding]:
    """The last thing the kubelet said of volumes, which stands in no status."""
    about = [one for one in events if one.about == pod.uid and one.reason in _MOUNT_EVENTS]
    if not about:
        return
    last = max(about, key=lambda one: one.last.timestamp() if one.last else 0.0)
    reason = _config(last.message)
    yield Finding(reason if reason != "ContainerCannotStart" else "VolumeNotMounted", f"pod {pod.name}: {last.message}")
