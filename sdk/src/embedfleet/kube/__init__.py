"""What speaks to a Kubernetes API server, over aiohttp; why not by its Python client: docs/decisions/0011."""
