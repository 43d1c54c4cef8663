"""`python -m tools.images [server|operator]…`: build the images of this tree; `make images`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.images.building import Built, build
from tools.images.errors import ImagesError
from tools.images.recipes import operator, server


def main(arguments: Sequence[str]) -> int:
    """Build what is asked for and say what came of it; 1 with a line on standard error when it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m tools.images", description=__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="server, operator (both)")
    parser.add_argument("--variant", choices=("cpu", "cuda"), default="cpu", help="of the server (%(default)s)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write each as NAME.tar, its parts list beside it")
    asked = parser.parse_args(arguments)
    known = {"server": server(asked.variant), "operator": operator()}
    if unknown := sorted(set(asked.images) - set(known)):
        parser.error(f"image {unknown[0]!r}: it must be server or operator")
    try:
        built = build([known[name] for name in asked.images or known])
    except ImagesError as failure:
        print(failure, file=sys.stderr)
        return 1
    for image in built:
        print(_told(image))
        if asked.output:
            _write(image, asked.output)
    return 0


def _told(built: Built) -> str:
    layers, last = built.image.size >> 20, built.image.last.size >> 10
    return f"{built.name}: {layers} MiB in {len(built.image.layers)} layers, the last {last} KiB"


def _write(built: Built, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    archive = built.write(folder / f"{built.recipe.label}.tar")
    bill = folder / f"{built.recipe.label}.cdx.json"
    bill.write_bytes(built.sbom)
    print(f"  {archive}\n  {bill}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
