"""The batching core: pure decisions over queues, permits and costs."""
