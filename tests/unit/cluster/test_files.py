"""Certificates, kubeconfigs, images and hollow nodes are what Kubernetes and containerd read."""

import datetime as dt
import hashlib
import json
import tarfile
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from tests.cluster import groups, hollow, kubeconfig
from tests.cluster.certificates import Authority
from tests.cluster.images import write_image

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def test_a_certificate_tells_user_groups_and_addresses() -> None:
    """It is signed by the authority, valid now, and names who it is of and where it serves."""
    authority = Authority.create(NOW)
    pair = authority.issue("ada", ["readers", "writers"], addresses=["127.0.0.1"], now=NOW)
    made = x509.load_pem_x509_certificate(pair.certificate)
    made.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.pair.certificate))
    assert [name.value for name in made.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["ada"]
    groups_told = made.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    assert [name.value for name in groups_told] == ["readers", "writers"]
    assert made.not_valid_before_utc < NOW < made.not_valid_after_utc
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_keys_are_their_owners(tmp_path: Path) -> None:
    """Private keys and kubeconfigs are readable by their owner alone, and what is read is what was written."""
    authority = Authority.create(NOW)
    authority.pair.write(tmp_path, "ca")
    config = kubeconfig.for_token("https://127.0.0.1:1", authority.pair.certificate, "t")
    kubeconfig.write(tmp_path / "config", config)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "ca.key", tmp_path / "config")} == {0o600}
    assert Authority.read(tmp_path) == authority
    assert json.loads((tmp_path / "config").read_text())["users"][0]["user"] == {"token": "t"}


def test_an_image_names_its_layer(tmp_path: Path) -> None:
    """The archive holds one layer under its digest, and in it the files, links and folders that were asked for."""
    (tmp_path / "program").write_bytes(b"elf")
    image = write_image(
        tmp_path / "image.tar",
        "a/b:1",
        {"/bin/program": tmp_path / "program"},
        links={"/run": "/bin/program"},
        folders=["/data"],
        entrypoint=["/run"],
    )
    with tarfile.open(image) as archive:
        layer = archive.extractfile("layer.tar")
        config = archive.extractfile("config.json")
        assert layer
        assert config
        told = json.load(config)
        assert told["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer.read()).hexdigest()}"]
        layer.seek(0)
        with tarfile.open(fileobj=layer) as files:
            kinds = {entry.name: (entry.isdir(), entry.issym(), entry.mode) for entry in files}
    assert told["config"]["Entrypoint"] == ["/run"]
    assert kinds == {"data": (True, False, 0o755), "run": (False, True, 0o755), "bin/program": (False, False, 0o755)}


def test_hollow_nodes_keep_to_themselves_beside_real_ones() -> None:
    """Each has a name, GPUs and, beside real nodes, a taint."""
    alone, beside = (hollow.nodes(2, tainted=tainted)["items"] for tainted in (False, True))
    assert [node["metadata"]["name"] for node in alone] == ["hollow1", "hollow2"]
    assert alone[0]["status"]["allocatable"]["nvidia.com/gpu"] == "8"
    assert [node["spec"]["taints"] for node in alone] == [[], []]
    assert beside[1]["spec"]["taints"] == [{"key": "type", "value": "hollow", "effect": "NoSchedule"}]


def test_the_hierarchies_of_control_groups(tmp_path: Path) -> None:
    """Version 1 has a folder for each controller, each counted once; version 2 is the root itself."""
    for name in ("cpu,cpuacct", "memory"):
        (tmp_path / name).mkdir()
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")
    assert groups.hierarchies(tmp_path) == [tmp_path / "cpu,cpuacct", tmp_path / "memory"]
    (tmp_path / "cgroup.controllers").touch()
    assert groups.hierarchies(tmp_path) == [tmp_path]
    assert groups.hierarchies(tmp_path / "none") == []
