"""Stand-ins for libraries that a CPU does not need."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from tools.images import stubs

DYNAMIC = """ 0x0000000000000001 (NEEDED)             Shared library: [libcublas.so.13]
 0x0000000000000001 (NEEDED)             Shared library: [libnccl.so.2]
 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]
"""
VERSIONS = """  0x0300: Version: 1  File: libcublas.so.13  Cnt: 1
  0x0310:   Name: libcublas.so.13  Flags: none  Version: 3
  0x0320: Version: 1  File: libc.so.6  Cnt: 1
  0x0330:   Name: GLIBC_2.14  Flags: none  Version: 41
"""
SYMBOLS = """     6: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND cublasCreate@libcublas.so.13 (3)
   450: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND ncclAllReduce
   451: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND memcpy@GLIBC_2.14 (41)
   452: 0000000000000000     0 NOTYPE  WEAK   DEFAULT  UND __gmon_start__
   453: 0000000000001000     9 FUNC    GLOBAL DEFAULT   12 ours
"""


@pytest.mark.requirement("O6")
def test_a_stub_has_what_is_asked_of_the_missing_library() -> None:
    """Symbols go to the library whose version they ask for, those without one to any that is missing; what the system
    has and what may be absent stays out.
    """
    library = stubs.read(DYNAMIC, VERSIONS, SYMBOLS)
    assert stubs.missing([library], frozenset({"libc.so.6"})) == [
        stubs.Stub(
            "libcublas.so.13", {"": frozenset({"ncclAllReduce"}), "libcublas.so.13": frozenset({"cublasCreate"})}
        ),
        stubs.Stub("libnccl.so.2", {}),
    ]
    assert stubs.missing([library], frozenset({"libc.so.6", "libcublas.so.13", "libnccl.so.2"})) == []


@pytest.mark.requirement("O6")
@pytest.mark.skipif(
    not (shutil.which("gcc") and shutil.which("readelf")), reason="no gcc and readelf here (Debian: gcc)"
)
def test_a_library_loads_with_its_stand_in(tmp_path: Path) -> None:
    """A library whose dependency is gone loads again beside the stub, and what it asks of it fails with an error."""
    (tmp_path / "torch" / "lib").mkdir(parents=True)
    for name, code, options in (
        ("libgone.so.1", "int gone(void) { return 0; }", ["-Wl,-soname,libgone.so.1", version_script(tmp_path)]),
        (
            "torch/lib/libours.so",
            "int gone(void); int ours(void) { return gone(); }",
            ["libgone.so.1", "-Wl,-rpath,$ORIGIN"],
        ),
    ):
        (tmp_path / "code.c").write_text(code)
        command = ["gcc", "-shared", "-fPIC", "-o", name, "code.c", *options]
        subprocess.run(command, cwd=tmp_path, check=True)
    (tmp_path / "libgone.so.1").unlink()
    ours = tmp_path / "torch" / "lib" / "libours.so"
    with pytest.raises(OSError, match=r"libgone\.so\.1"):
        ctypes.CDLL(str(ours))
    stubs.main(tmp_path)
    assert ctypes.CDLL(str(ours)).ours() == 1


def version_script(folder: Path) -> str:
    """A linker option that gives the symbols a version, as CUDA's have."""
    (folder / "gone.map").write_text("GONE_1 { global: gone; };\n")
    return f"-Wl,--version-script={folder / 'gone.map'}"
