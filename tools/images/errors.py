"""What can go wrong while images are made.

ImagesError
├── CannotBuild   this machine has nothing that builds images; the message says what would
└── BuildFailed   a step of a build failed; its own words are on standard error
"""


class ImagesError(Exception):
    """The tree's root; the message says what to do where something can be done."""


class CannotBuild(ImagesError):
    """Neither Docker nor Podman runs, and there is no way to start one here.

    Args:
        lacks: what is missing.
        curable: whether some set-up (another user, a package) could provide it; else it is as good as hardware.
    """

    def __init__(self, lacks: str, *, curable: bool = True) -> None:
        super().__init__(f"images cannot be built here: {lacks}")
        self.curable = curable


class BuildFailed(ImagesError):
    """Names the step."""
