"""Why a model cannot be served, in words for its user."""


class ModelProblem(Exception):
    """The model's files, or what the manifest asks of them, cannot be served; the text says what must change."""
