"""Turns an EmbeddingService into the Kubernetes objects that run it."""
