"""The files of an image's last layer: `python unpack.py TARGET WHEEL…`. Standard library alone; runs in builds too.

A wheel of plain Python needs no installer: its packages and metadata are put into TARGET, which the interpreter of the
image has on its path. They are compiled there, since a pod's root file system cannot be written.
"""

import compileall
import py_compile
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

CODE = "/opt/embedfleet/code"
"""Where the files lie in an image, whatever TARGET is while it is built."""


def unpack(target: Path, wheels: Sequence[Path]) -> None:
    """Put the contents of `wheels` into `target`. Raises `ValueError` for one that needs an installer."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            if scattered := [name for name in archive.namelist() if ".data/" in name]:
                raise ValueError(f"{wheel.name}: {scattered[0]} is not for the path of Python alone")
            archive.extractall(target)
    _compile(target)


def _compile(target: Path) -> None:
    """Not bound to times of files, which a build does not keep."""
    compileall.compile_dir(
        target,
        quiet=1,
        stripdir=str(target),
        prependdir=CODE,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


if __name__ == "__main__":
    unpack(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
