"""The batching server of embedfleet: queues per model, one semaphore, graceful drain."""
