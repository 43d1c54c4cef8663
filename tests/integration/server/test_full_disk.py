"""A weight cache on a disk that is really full: a file system of a few MiB, in a mount namespace of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from embedfleet.api.termination import parse
from tests.support.fake_hub import files_of, hub
from tests.support.process import ROOT
from tests.support.tiny_models import make_bert

pytestmark = pytest.mark.requirement("O4", "S5")
REPO, WEIGHTS = "org/tiny", "model.safetensors"
_DISK = 4 << 20
_LARGER = "2_Dense/model.safetensors"


def _alone() -> list[str]:
    """The command that gives a program mounts of its own, as root or, where the kernel allows it, as anyone."""
    for command in (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]):
        try:
            if subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0:
                return command
        except FileNotFoundError:
            break
    pytest.skip("no mount namespace can be had here: it takes util-linux's unshare, and root or user namespaces")


def _padded(name: str, content: bytes) -> bytes:
    """Weights larger than the disk, and whole: their header has room for a tensor that no module asks for."""
    if name != _LARGER:
        return content
    length = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    data = content[8 + length :]
    header["padding"] = {"dtype": "U8", "shape": [2 * _DISK], "data_offsets": [len(data), len(data) + 2 * _DISK]}
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data + bytes(2 * _DISK)


def test_a_full_weight_cache(tmp_path: Path) -> None:
    """The fetch ends with `CacheFull`, at once, naming the repository; nothing of what lies there is taken for a whole
    model, by a fetch or by a server, which names the cause. Once there is room the same store is filled, and served.
    """
    command = _alone()
    made = make_bert(tmp_path / "model", dense=8)
    files = {name: _padded(name, content) for name, content in files_of(made).items()}
    work = tmp_path / "work"
    work.mkdir()
    source = {"huggingFace": {"repo": REPO}}
    (work / "models.json").write_text(
        json.dumps({"service": "fleet", "models": [{"name": "semantic", "source": source}]})
    )
    with hub(REPO, files) as served:
        program = [sys.executable, "-m", "tests.support.full_disk", str(work), served.url, str(_DISK)]
        environ = os.environ | {"HF_ENDPOINT": served.url, "HF_HUB_OFFLINE": "0", "HOME": str(tmp_path)}
        done = subprocess.run(
            [*command, *program], cwd=ROOT, env=environ, check=False, capture_output=True, text=True, timeout=300
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    said = parse(found["full"]["word"])
    assert said is not None
    assert (found["full"]["status"], said.code, said.model) == (1, "CacheFull", "semantic")
    assert REPO in said.message
    assert "No space left on device" in said.message
    assert found["full"]["waits"] == []
    assert found["full"]["whole"] is False
    assert "No space left on device" in found["server"]
    assert REPO in found["server"]
    assert (found["room"]["status"], found["room"]["word"], found["room"]["whole"]) == (0, "", True)
    assert not list((work / "store").iterdir())  # the disk was the program's own
