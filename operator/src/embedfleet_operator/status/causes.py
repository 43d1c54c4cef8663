"""Every cause that a condition can name: what has been seen, and what to do. docs/operations.md is made of it.

The order is that of importance: where several hold, a condition names the first.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """A reason of a condition."""

    reason: str
    seen: str
    """What the operator has seen, for the documentation."""
    remedy: str
    """What to do about it, for the documentation and for the condition's message."""
    blocks: bool = True
    """Whether it keeps the newest spec from being served as asked; else the service is only Degraded by it."""


def _table(*causes: Cause) -> dict[str, Cause]:
    return {cause.reason: cause for cause in causes}


_SPEC = (
    Cause(
        "NewerVersion",
        "The object has fields or values that this operator does not know.",
        "upgrade the operator, or take the field out; the pods stay as they are",
    ),
    Cause(
        "NameTaken",
        "An object with the name of a child exists and belongs to somebody else.",
        "delete or rename that object, or give the service another name",
    ),
    Cause(
        "PodTemplateInvalid",
        "`spec.podTemplate` cannot be merged into the pod, or the API server refuses the result.",
        "correct spec.podTemplate; the pods stay as they are",
    ),
    Cause(
        "PathNotAbsolute",
        "A model's `source.path` is relative, which has a meaning on a laptop only.",
        "name an absolute path in the server's image or on a volume that podTemplate mounts, or use another source",
    ),
    Cause(
        "PipelineInvalid",
        "A step of a pipeline cannot read what it names, as far as the manifest tells the models' tasks.",
        "correct the step that the message names; the pods stay as they are",
    ),
    Cause(
        "ImageUnset",
        "Neither the spec nor the operator names an image of the server.",
        "set spec.image, or serverImage in the chart's values",
    ),
    Cause(
        "QuotaExceeded",
        "A quota of the namespace leaves no room for a pod or another child.",
        "raise the ResourceQuota, or ask for fewer replicas or smaller resources",
    ),
    Cause(
        "PodSecurityRefused",
        "The namespace's Pod Security level refuses the pods; as rendered they meet `restricted`.",
        "take what the message names out of spec.podTemplate, or change the namespace's level",
    ),
    Cause(
        "Forbidden",
        "The operator may not write one of the children.",
        "give the operator's role the verb that the message names (the chart's role has it)",
    ),
    Cause(
        "ApplyRefused",
        "The API server refuses one of the children, in the words of the message.",
        "change what the message names; an admission policy of the cluster may be behind it",
    ),
    Cause(
        "PodsRefused",
        "The ReplicaSet cannot make pods, for another reason than a quota or Pod Security.",
        "read the message; an admission policy of the cluster may be behind it",
    ),
)

_POD = (
    Cause(
        "SecretMissing",
        "A Secret that the spec names does not exist.",
        "make the Secret in the service's namespace; pods that wait for it go on by themselves",
    ),
    Cause(
        "SecretKeyEmpty",
        "A Secret lacks a key that is needed, or its value is empty.",
        "put a value into the Secret under that key",
    ),
    Cause(
        "ConfigMissing",
        "A ConfigMap that a pod names is not there; the operator makes its own anew.",
        "make the ConfigMap that podTemplate names, or wait for the operator if it is its own",
    ),
    Cause(
        "ClaimMissing",
        "A PersistentVolumeClaim that the spec names does not exist.",
        "make the claim in the service's namespace",
    ),
    Cause(
        "ClaimPending",
        "A PersistentVolumeClaim has no volume yet.",
        "see `kubectl describe pvc`: its storage class may not exist or may have no room",
    ),
    Cause(
        "InsufficientGPU",
        "No node has as many free GPUs as a pod asks for.",
        "add a GPU node, free a GPU, or lower gpu.count or replicas; rollout.strategy Auto needs no spare one",
    ),
    Cause(
        "Unschedulable",
        "The scheduler finds no node for a pod, for another reason than GPUs.",
        "compare the message with the pods' resources, nodeSelector and tolerations (spec.podTemplate)",
    ),
    Cause(
        "InvalidImageName",
        "An image's reference cannot be read.",
        "correct spec.image or the image of the container that the message names",
    ),
    Cause(
        "ImagePullBackOff",
        "A node cannot pull an image.",
        "check the image's name and tag, imagePullSecrets, and that nodes reach the registry",
    ),
    Cause(
        "VolumeNotMounted",
        "A volume cannot be attached or mounted.",
        "see the message; a ReadWriteOnce claim may be held by a pod on another node",
    ),
    Cause(
        "ContainerCannotStart",
        "The container runtime cannot start a container.",
        "see the message; a command or mount in spec.podTemplate may be wrong",
    ),
    Cause(
        "Evicted",
        "A node has put a pod out, for want of memory or disk.",
        "raise the requests in spec.podTemplate, or weights.cache.sizeLimit if that was passed",
    ),
    Cause(
        "WeightsMissing",
        "The init container `fetch` did not get a model's weights: there is no such repository, revision or file.",
        "correct the model's source.huggingFace (repo, revision)",
    ),
    Cause(
        "DigestMismatch",
        "Fetched weights are not what the hub's digests say, on each attempt.",
        "empty the cache volume; if it comes again, the endpoint or a proxy on the way changes files",
    ),
    Cause(
        "HubUnreachable",
        "The hub does not answer the init container.",
        "check weights.endpoint, the cluster's way out and proxies; or take a source of kind volume or image",
    ),
    Cause(
        "HubRefused",
        "The hub refuses the init container: no token, or one without the right.",
        "check weights.tokenSecretRef, and that the token's owner has accepted the model's terms",
    ),
    Cause(
        "CacheFull",
        "The weights do not fit into the cache volume.",
        "enlarge the claim or weights.cache.sizeLimit",
    ),
    Cause(
        "SettingsInvalid",
        "The server refuses its settings file: it is of another version than the operator.",
        "take a spec.image of the operator's version",
    ),
    Cause(
        "OOMKilled",
        "A container used more memory than its limit.",
        "raise the memory limit of container server in spec.podTemplate, or serve fewer or smaller models per pod",
    ),
    Cause(
        "DeviceLost",
        "The GPU failed in a way that only a new process cures; the server has ended itself.",
        "the pod restarts by itself; when it comes again on one node, look at that node's GPU (`nvidia-smi`, dmesg)",
    ),
    Cause(
        "ModelLoadFailed",
        "A required model cannot be loaded, in the server's words.",
        "correct the model's source or settings; `required: false` lets the others serve without it",
    ),
    Cause(
        "CrashLoopBackOff",
        "A container ends again and again.",
        "read its last words in the message, and more in `kubectl logs --previous`",
    ),
)

_DEGRADED = (
    Cause(
        "FewerPods",
        "Some of the wanted pods take no requests.",
        "see the pods' own states; during a drain-first rollout this is expected",
        blocks=False,
    ),
    Cause(
        "OptionalModelFailed",
        "A model that is not required cannot be loaded, in the server's words; the others are served.",
        "correct the model's source or settings; requests for it are refused meanwhile",
        blocks=False,
    ),
    Cause(
        "PipelineUnfit",
        "A step of a pipeline does not fit the models as they are loaded: their task, or the length of their vectors.",
        "correct the step that the message names, or give it another model; its requests are refused meanwhile",
        blocks=False,
    ),
    Cause(
        "FingerprintsDiffer",
        "Pods serve different weights under one model's name, so that their vectors cannot be compared.",
        "set source.huggingFace.revision to a commit; with a commit set, delete the pods that differ",
        blocks=False,
    ),
    Cause(
        "SettingsRejected",
        "A server could not use a batching file and keeps its old values.",
        "the ConfigMap was edited by hand or is of another version; the server's log names the field",
        blocks=False,
    ),
    Cause(
        "ServerUnwell",
        "A server finds something critical about itself, in the words of its `/state`.",
        "see the message: more replicas, smaller batches or more memory, as the finding says",
        blocks=False,
    ),
    Cause(
        "ApiMissing",
        "The spec asks for an object of a type that the cluster does not have.",
        "install what brings the type (for a ServiceMonitor the Prometheus operator), or do not ask for it",
        blocks=False,
    ),
)

CAUSES = _table(*_SPEC, *_POD, *_DEGRADED)


@dataclass(frozen=True, slots=True)
class Finding:
    """A cause that holds now, and its particulars."""

    reason: str
    detail: str

    @property
    def cause(self) -> Cause:
        """Its row of the table."""
        return CAUSES[self.reason]

    @property
    def message(self) -> str:
        """The particulars, and what to do."""
        remedy = self.cause.remedy
        return f"{self.detail.rstrip(' .')}. {remedy[0].upper()}{remedy[1:]}."


RANK = {reason: place for place, reason in enumerate(CAUSES)}
"""Importance: the first of several is named."""
