"""`spec.batching`: how requests become batches."""

from typing import Annotated, Any, Literal

from pydantic import Field

from embedfleet.api.base import ContractModel, Plain, Rule

Count = Annotated[int, Field(ge=1, le=100_000)]
Tokens = Annotated[int, Field(ge=1, le=100_000_000)]
BatchSize = Annotated[int, Field(ge=1, le=4096)]
BatchTokens = Annotated[int, Field(ge=1, le=4_194_304)]
Wait = Annotated[int, Field(ge=0, le=60_000)]
BatchTime = Annotated[int, Field(ge=1, le=600_000)]
BatchMemory = Annotated[int, Field(ge=1, le=10_000_000)]
Sizing = Literal["Adaptive", "Fixed"]

_LARGEST: dict[str, int] = {"Adaptive": 256, "Fixed": 32}
"""`maxBatchSize` where it is unset."""
_SMALLEST = "minBatchSize must not be above maxBatchSize (256 where it is unset, 32 with sizing Fixed)"


def largest_batch(batching: Plain) -> Any:
    """`maxBatchSize` of plain batching values, its default filled in."""
    given = batching.get("maxBatchSize")
    return _LARGEST[batching.get("sizing") or "Adaptive"] if given is None else given


class ModelBatching(ContractModel):
    """Batching values for one model alone; what is unset comes from `spec.batching`."""

    enabled: bool | None = None
    """Whether requests share batches at all."""
    paused: bool | None = None
    """Start nothing of this model; queued work stays and new work is admitted up to the bound."""
    sizing: Sizing | None = None
    """`Adaptive`: the size of batches is learnt; `Fixed`: it is `maxBatchSize`."""
    initial_batch_size: BatchSize | None = None
    """Where learning starts, within the two below."""
    min_batch_size: BatchSize | None = None
    """Smallest size that is learnt; never delays a batch."""
    max_batch_size: BatchSize | None = None
    """Most inputs in one batch."""
    target_batch_milliseconds: BatchTime | None = None
    """Longest that a batch should take, of nineteen in twenty."""
    max_batch_memory_mib: BatchMemory | None = Field(default=None, alias="maxBatchMemoryMiB")
    """Most memory of its device, in MiB, that a batch may be predicted to take beyond the model's own."""
    max_batch_tokens: BatchTokens | None = None
    """Most tokens in one batch, as the model computes them: padded where it pads. One longer input goes alone."""
    max_wait_milliseconds: Wait | None = None
    """Longest that an input waits for company."""
    min_batch_interval_milliseconds: Wait | None = None
    """Least time between the starts of two batches; never against `maxWaitMilliseconds`."""
    dispatch_when_idle: bool | None = None
    """With a slot free, nothing waits for company."""
    sort_by_length: bool | None = None
    """Inputs of like length share a batch."""
    deterministic: bool | None = None
    """Whether the same input has the same bits whatever shares its batch; slower, see `spec.batching`."""
    max_queued_requests: Count | None = None
    """Most inputs of this model waiting at once, where that is to be less than the service's bound."""
    max_queued_tokens: Tokens | None = None
    """Most tokens of this model waiting at once, where that is to be less than the service's bound."""

    cel_rules = (
        Rule(
            "!has(self.minBatchSize) || !has(self.maxBatchSize) || self.minBatchSize <= self.maxBatchSize",
            "minBatchSize must not be above maxBatchSize",
            lambda self: (self.get("minBatchSize") or 1) <= (self.get("maxBatchSize") or self.get("minBatchSize") or 1),
        ),
    )


class Health(ContractModel):
    """When the server finds something wrong with itself: told in `/state` and, once per change, in the log."""

    interval_seconds: Annotated[int, Field(ge=1, le=3600)] = 30
    """Time from one look to the next."""
    queue_warning: Count = 500
    """Inputs waiting over all models that are worth a warning."""
    queue_critical: Count = 800
    """Inputs waiting over all models at which LOW work is refused."""
    memory_warning_percent: Annotated[int, Field(ge=1, le=100)] = 80
    """Share of memory in use from which batches are formed with half their tokens."""
    memory_critical_percent: Annotated[int, Field(ge=1, le=100)] = 90
    """Share of memory in use from which batches are a quarter, and requests are refused with a delay."""
    failing_percent: Annotated[int, Field(ge=1, le=100)] = 50
    """More of a model's last 20 batches failing than this, its requests are refused at once, with the cause."""
    probe_after_seconds: Annotated[int, Field(ge=1, le=3600)] = 5
    """Then one batch is tried after so long, and after twice as long each time it fails, at most a minute."""

    cel_rules = (
        Rule(
            "self.queueWarning <= self.queueCritical",
            "queueWarning must not be above queueCritical",
            lambda self: self.get("queueWarning", 500) <= self.get("queueCritical", 800),
        ),
        Rule(
            "self.memoryWarningPercent <= self.memoryCriticalPercent",
            "memoryWarningPercent must not be above memoryCriticalPercent",
            lambda self: self.get("memoryWarningPercent", 80) <= self.get("memoryCriticalPercent", 90),
        ),
    )


class Batching(ContractModel):
    """How requests become batches; from `maxConcurrentBatches` on the fields hold for the service as a whole."""

    enabled: bool = True
    """Whether requests share batches at all; when false each request is a batch of its own."""
    paused: bool = False
    """Start nothing; queued work stays and new work is admitted up to the bound."""
    sizing: Sizing = "Adaptive"
    """`Adaptive`: the size that gives most throughput is learnt from the batches; `Fixed`: it is `maxBatchSize`."""
    initial_batch_size: BatchSize = 32
    """Where learning starts, within the two below."""
    min_batch_size: BatchSize = 1
    """Smallest size that is learnt; never delays a batch."""
    max_batch_size: BatchSize | None = None
    """Most inputs in one batch. Unset: 256, or 32 with sizing `Fixed`."""
    target_batch_milliseconds: BatchTime | None = None
    """Longest that a batch should take, of nineteen in twenty; learning keeps to it. Unset: as long as it likes."""
    max_batch_memory_mib: BatchMemory | None = Field(default=None, alias="maxBatchMemoryMiB")
    """Most memory of its device, in MiB, that a batch may be predicted to take beyond the model's own."""
    max_batch_tokens: BatchTokens = 16384
    """Most tokens in one batch, as the model computes them: padded where it pads. One longer input goes alone."""
    max_wait_milliseconds: Wait = 50
    """Longest that an input waits for company; acts where `dispatchWhenIdle` does not send it sooner."""
    min_batch_interval_milliseconds: Wait = 0
    """Least time between the starts of two batches of a model; never against `maxWaitMilliseconds`."""
    dispatch_when_idle: bool = True
    """With a slot free, nothing waits for company; batches grow while all slots are busy."""
    sort_by_length: bool = True
    """Inputs of like length share a batch; the oldest always goes first, and answers keep their order."""
    deterministic: bool = Field(
        default=False,
        description="The same input has the same bits whatever shares its batch, and after each restart on like "
        "hardware. Slower: on a CPU models of BERT's kind take 1.0 to 1.4 times as long (measured with "
        "all-MiniLM-L6-v2); others, and all on a GPU, compute each input by itself (1.1 to 6.5 times, most with short "
        "texts).",
    )
    max_concurrent_batches: Annotated[int, Field(ge=1, le=256)] = 4
    """Most batches under way at once, over all models; a device runs one, and shortly before
    its end one more waits there."""
    max_queued_requests: Count = 1000
    """Most inputs waiting at once over all models; what does not fit is refused at once and whole."""
    max_queued_tokens: Tokens | None = None
    """Most tokens waiting at once over all models. Unset: bounded by `maxQueuedRequests` alone."""
    item_timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = 30
    """No caller waits longer than this for an answer."""
    max_retries: Annotated[int, Field(ge=0, le=100)] = 3
    """How often a batch is tried again after a fault that may pass."""
    retry_delay_milliseconds: Annotated[int, Field(ge=0, le=600_000)] = 1000
    """Wait before the first of these tries; it doubles with each."""
    vector_cache_mib: Annotated[int, Field(ge=0, le=1_000_000)] = Field(default=0, alias="vectorCacheMiB")
    """Memory, in MiB, for vectors of inputs that may come again; 0 keeps none. What is under way is shared anyway."""
    health: Health = Field(default_factory=Health)
    """When the server finds something wrong with itself."""

    cel_rules = (
        Rule(
            "self.minBatchSize <= (has(self.maxBatchSize) ? self.maxBatchSize : self.sizing == 'Fixed' ? 32 : 256)",
            _SMALLEST,
            lambda self: self.get("minBatchSize", 1) <= largest_batch(self),
        ),
    )

    @property
    def largest_batch(self) -> int:
        """`maxBatchSize`, its default filled in."""
        return _LARGEST[self.sizing] if self.max_batch_size is None else self.max_batch_size

    def for_model(self, own: ModelBatching | None) -> "Batching":
        """These values with one model's own put over them (the queue bounds stay the service's)."""
        if own is None:
            return self
        changes = own.model_dump(exclude_none=True, exclude={"max_queued_requests", "max_queued_tokens"})
        return self.model_copy(update=changes)
