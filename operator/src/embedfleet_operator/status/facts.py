"""What conditions are judged by: the spec, what is seen of it, and what was decided about it."""

from dataclasses import dataclass

from embedfleet.api import EmbeddingService
from embedfleet_operator.errors import CannotRender
from embedfleet_operator.observed import Observed, Pod, ServerState
from embedfleet_operator.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The input of every table of this package."""

    observed: Observed
    service: EmbeddingService | None
    """The spec; None when this operator cannot read it."""
    problems: tuple[str, ...] = ()
    """Why it cannot."""
    obstacle: CannotRender | None = None
    """Why nothing was rendered."""
    plan: Plan | None = None
    rendered: str | None = None
    """Digest of the Deployment as the newest spec has it."""

    @property
    def wanted(self) -> int:
        """Pods there are to be."""
        if self.service is None:
            return self.observed.deployment.wanted if self.observed.deployment else 0
        return 0 if self.service.spec.suspend else self.service.spec.replicas

    @property
    def ready_pods(self) -> tuple[Pod, ...]:
        """Pods that take requests, of whichever spec."""
        return tuple(pod for pod in self.observed.pods if pod.is_ready)

    @property
    def answers(self) -> tuple[tuple[Pod, ServerState], ...]:
        """Pods that stay and have answered, of the newest spec where there are such."""
        staying = self.observed.new_pods or tuple(pod for pod in self.observed.pods if not pod.leaving)
        return tuple((pod, pod.server) for pod in staying if pod.server is not None)

    @property
    def is_applied(self) -> bool:
        """The Deployment is of the newest spec, and its controller has seen it."""
        deployment = self.observed.deployment
        if deployment is None or self.rendered is None:
            return False
        return deployment.rendered == self.rendered and deployment.is_seen

    @property
    def is_rolled_out(self) -> bool:
        """Every pod is of the newest spec and ready, and no other is left."""
        deployment = self.observed.deployment
        return deployment is not None and self.is_applied and deployment.is_rolled_out

    @property
    def late_pods(self) -> tuple[str, ...]:
        """Names of pods known to run older batching values."""
        return tuple(pod.name for pod, answer in self.answers if (answer.generation or 0) < self.observed.generation)

    @property
    def is_rolling(self) -> bool:
        """Old pods are being replaced."""
        return self.plan is not None and bool(self.observed.old_pods) and self.wanted > 0 and not self.is_rolled_out
