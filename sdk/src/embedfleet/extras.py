"""Optional packages: imported when first used, and named with what installs them when they are missing."""

from importlib import import_module
from typing import Any

from embedfleet.errors import ExtraMissing


def need(module: str, extra: str, purpose: str, package: str | None = None) -> Any:
    """The module, or `ExtraMissing` that says which extra of embedfleet brings it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise  # it is there, and something that it needs is not
        raise ExtraMissing(package or module, extra, purpose) from error
