"""Stand-ins for the CUDA libraries of an image for CPUs: `python stubs.py SITE_PACKAGES`, run while it is built.

The Python index carries one build of PyTorch for x86-64, and the loader wants its CUDA libraries, 2.8 GB of them, which
a CPU never calls. So the image for CPUs is installed without them, and each library that is then missing is made here:
the right name, the symbols that PyTorch asks for, and nothing behind them but an error code. Needs readelf and gcc.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_NEEDED = re.compile(r"\(NEEDED\)\s+Shared library: \[(?P<name>[^]]+)\]")
_VERSIONS_OF = re.compile(r"Version: 1 +File: (?P<file>\S+)")
_VERSION = re.compile(r"Name: (?P<version>\S+) +Flags")
_UNDEFINED = re.compile(r" (?P<bind>GLOBAL|WEAK) +\S+ +UND (?P<name>[^@\s]+)(?:@(?P<version>\S+))?")
_DEFINED = re.compile(r" (?:GLOBAL|WEAK) +\S+ +\d+ (?P<name>[^@\s]+)")


_DRIVER = "libcuda.so.1"  # the GPU driver's own: where it is missing, CUDA's runtime says that there is no GPU


@dataclass(frozen=True, slots=True)
class Library:
    """What the loader reads of a shared library."""

    needed: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    """Which of the needed libraries a version of a symbol comes from."""
    undefined: frozenset[tuple[str, str | None]] = frozenset()
    """Symbols that others must have, with their version; weak ones may stay without."""
    defined: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Stub:
    """A library to make: its symbols under each version, those without one under the empty name."""

    name: str
    symbols: Mapping[str, frozenset[str]]


def read(dynamic: str, versions: str, symbols: str) -> Library:
    """The library of which `readelf -d`, `readelf -V` and `readelf --dyn-syms` say this."""
    found = [match for match in map(_UNDEFINED.search, symbols.splitlines()) if match and match["bind"] == "GLOBAL"]
    return Library(
        needed=tuple(_NEEDED.findall(dynamic)),
        versions=_versions(versions),
        undefined=frozenset((match["name"], match["version"]) for match in found),
        defined=frozenset(_DEFINED.findall(symbols)),
    )


def _versions(told: str) -> dict[str, str]:
    made: dict[str, str] = {}
    file = None
    for line in told.splitlines():
        if match := _VERSIONS_OF.search(line):
            file = match["file"]
        elif file and (match := _VERSION.search(line)):
            made[match["version"]] = file
    return made


def missing(libraries: Iterable[Library], present: frozenset[str]) -> list[Stub]:
    """A stub for each library that is needed and not `present`, with all that is asked of it."""
    known = list(libraries)
    defined = frozenset().union(*(library.defined for library in known))
    wanted: dict[str, dict[str, set[str]]] = {}
    for library in known:
        absent = [name for name in library.needed if name not in present]
        for name in absent:
            wanted.setdefault(name, {})
        for symbol, version in library.undefined:
            file = library.versions.get(version) if version else _unversioned(symbol, absent, defined)
            if file in absent:
                wanted[str(file)].setdefault(version or "", set()).add(symbol)
    return [
        Stub(name, {version: frozenset(symbols) for version, symbols in sorted(found.items())})
        for name, found in sorted(wanted.items())
    ]


def _unversioned(symbol: str, absent: list[str], defined: frozenset[str]) -> str | None:
    """The loader looks such a symbol up everywhere, so that any of the absent libraries may have it."""
    return absent[0] if absent and symbol not in defined else None


def source(stub: Stub) -> str:
    """C: each symbol is a function that returns 1, which is an error in every CUDA library."""
    names = sorted(frozenset().union(*stub.symbols.values()))
    return "".join(f"int {name}(void) {{ return 1; }}\n" for name in names)


def version_script(stub: Stub) -> str:
    """For the linker: which symbol has which version."""
    nodes = [
        f"{version} {{ global: {' '.join(f'{name};' for name in sorted(names))} }};\n"
        for version, names in stub.symbols.items()
        if version
    ]
    return "".join(nodes)


def main(site_packages: Path) -> int:
    """Make what is missing beside PyTorch's own libraries, where these look last."""
    torch = site_packages / "torch"
    files = [file for file in torch.rglob("*.so*") if file.is_file()]
    beside = {file.name for file in site_packages.rglob("*.so*")}
    system = re.findall(r"^\s+(\S+) \(", _output("ldconfig", "-p"), re.MULTILINE)
    stubs = missing(map(_library, files), frozenset({*beside, *system, _DRIVER}))
    for stub in stubs:
        _compile(stub, torch / "lib" / stub.name)
    print("stubs:", *(stub.name for stub in stubs))
    return 0


def _library(file: Path) -> Library:
    dynamic, versions = _output("readelf", "-dW", str(file)), _output("readelf", "-VW", str(file))
    return read(dynamic, versions, _output("readelf", "-W", "--dyn-syms", str(file)))


def _compile(stub: Stub, target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        code, script = Path(folder) / "stub.c", Path(folder) / "stub.map"
        code.write_text(source(stub))
        script.write_text(version_script(stub))
        versioned = [f"-Wl,--version-script={script}"] if script.read_text() else []
        options = ["-shared", "-fPIC", "-nostdlib", "-w", f"-Wl,-soname,{stub.name}", *versioned]
        subprocess.run(["gcc", *options, "-o", str(target), str(code)], check=True)


def _output(*command: str) -> str:
    path = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    return subprocess.run(command, env=path, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
