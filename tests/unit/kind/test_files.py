"""What is written for kind, Docker and the node, decided without any of them."""

import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.kind import config, control_plane_images, node_image, own_docker, programs, root_files, runc
from tests.kind.cluster import is_docker
from tests.kind.creating import CONFIG
from tests.kind.plan import API_PORT, KindPlan
from tools.images.engine import Engine
from tools.images.layout import Layer

PLAN = KindPlan(Path("/x/cluster"), Path("/programs"), nodes=1, mounts={"/weights": "/here"})
OWN = replace(PLAN, image="/cache/node", store=Path("/cache/store"), below="/cache/below")


@pytest.mark.requirement("O6")
def test_a_docker_that_runs_gets_kinds_own_ways() -> None:
    """Network plugins, node image and port are left to kind; what is added is what was asked for."""
    told = config.of(PLAN, CONFIG.read_text(encoding="utf-8"))
    assert told["nodes"] == [
        {"role": "control-plane", "extraMounts": [{"hostPath": "/here", "containerPath": "/weights"}]}
    ]
    assert "networking" not in told
    assert not PLAN.own


@pytest.mark.requirement("O6")
def test_an_own_node_begins_with_the_store() -> None:
    """It sees the store, and the one below, under the same paths, so that links into them lead there, and cannot write
    to them; its network plugins are its own, and the API server is where the way from outside leads to.
    """
    told = config.of(OWN, CONFIG.read_text(encoding="utf-8"))
    (node,) = told["nodes"]
    for path in ("/cache/store", "/cache/below"):
        assert {"hostPath": path, "containerPath": path, "readOnly": True} in node["extraMounts"]
    assert {"hostPath": "/x/cluster/containerd", "containerPath": "/var/lib/containerd"} in node["extraMounts"]
    assert told["networking"] == {"disableDefaultCNI": True, "apiServerPort": API_PORT}
    patches = [yaml.safe_load(patch) for patch in told["kubeadmConfigPatches"]]
    assert {"kind": "KubeletConfiguration", "failCgroupV1": False} in patches


@pytest.mark.requirement("O6")
def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    """The processes of a cluster know what its starter knew."""
    plan = replace(OWN, directory=tmp_path, tied=False)
    plan.save()
    assert KindPlan.load(tmp_path) == plan


@pytest.mark.requirement("O6")
def test_kind_is_led_to_its_docker_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts, other providers and proxies of this machine do not lead a cluster's commands elsewhere."""
    for name, value in (("DOCKER_CONTEXT", "other"), ("KIND_EXPERIMENTAL_PROVIDER", "podman"), ("HTTPS_PROXY", "p")):
        monkeypatch.setenv(name, value)
    environ = programs.environ(OWN)
    assert environ["DOCKER_HOST"] == "unix:///x/cluster/docker.sock"
    assert environ["PATH"].startswith("/x/cluster/bin:")
    assert environ["KIND_EXPERIMENTAL_PROVIDER"] == "docker"
    assert not {"DOCKER_CONTEXT", "HTTPS_PROXY"} & environ.keys()
    monkeypatch.setenv("DOCKER_HOST", "unix:///theirs")
    assert programs.environ(PLAN)["DOCKER_HOST"] == "unix:///theirs"


@pytest.mark.requirement("O6")
def test_an_own_docker_keeps_to_its_folder_and_group() -> None:
    """Data, socket and control groups are the cluster's, so that they can be removed with it."""
    told = own_docker.command(OWN)
    assert "--data-root=/x/cluster/docker" in told
    assert "--host=unix:///x/cluster/docker.sock" in told
    assert f"--cgroup-parent=/{OWN.group}" in told


@pytest.mark.requirement("O6")
def test_podman_is_no_docker() -> None:
    """kind's own provider for it is an experiment; a Docker is started beside it."""
    assert is_docker(Engine(("docker",)))
    assert not is_docker(Engine(("podman",)))
    assert not is_docker(None)


@pytest.mark.requirement("O6")
def test_runc_is_asked_for_what_root_may_have(tmp_path: Path) -> None:
    """Of a container's configuration and of a process's, the capability goes and nothing else does."""
    assert runc.may("Name:\tx\nCapBnd:\t000001ffffffffff\n")
    assert not runc.may("CapBnd:\t000001fffeffffff\n")
    assert runc.files(["--root", "/r", "create", "--bundle", "/b", "id"]) == ["/b/config.json"]
    assert runc.files(["exec", "--process", "/p", "id"]) == ["/p"]
    sets = {"bounding": ["CAP_SYS_ADMIN", "CAP_SYS_RESOURCE"]}
    process = {"args": ["x"], "capabilities": sets, "oomScoreAdj": -999}
    careful = {"args": ["x"], "capabilities": {"bounding": ["CAP_SYS_ADMIN"]}, "oomScoreAdj": 0}
    assert runc.without(process) == careful
    assert runc.without({"root": 1, "process": process}) == {"root": 1, "process": careful}
    assert runc.without({"args": [], "oomScoreAdj": 500}) == {"args": [], "oomScoreAdj": 500}


@pytest.mark.requirement("O6")
def test_containerd_of_the_node_takes_kinds_settings() -> None:
    """But for the pause image, a hook that is not there, and a score that root may not give."""
    written = (
        'version = 2\n  base_runtime_spec = "x"\n  sandbox_image = "old"\n  restrict_oom_score_adj = false\n  a = 1\n'
    )
    made = root_files.containerd_settings(written, "registry/pause:9")
    assert made == 'version = 2\n  sandbox_image = "registry/pause:9"\n  restrict_oom_score_adj = true\n  a = 1\n'


@pytest.mark.requirement("O6")
def test_images_of_the_control_plane_are_known_by_their_names() -> None:
    """Which of them is the pause, and what an image runs that kubeadm names no program for."""
    names = ["registry.k8s.io/kube-proxy:v1", "registry.k8s.io/coredns/coredns:v2", "registry.k8s.io:443/pause:3.10.1"]
    assert control_plane_images.pause_of(names) == names[2]
    assert [control_plane_images.entrypoint(name) for name in names] == [[], ["/coredns"], ["/pause"]]


@pytest.mark.requirement("O6")
def test_libraries_are_found_inside_the_nodes_files(tmp_path: Path) -> None:
    """What ldd tells of lies below /usr there, and an absolute link leads to the node's file, not to this machine's."""
    told = "\tlinux-vdso.so.1 (0x1)\n\tlibnft.so.1 => /lib/x/libnft.so.1 (0x2)\n\t/lib64/ld.so.2 (0x3)\n"
    assert control_plane_images.libraries(told) == ["/lib/x/libnft.so.1", "/lib64/ld.so.2"]
    assert control_plane_images.merged("/lib/x/libnft.so.1") == "usr/lib/x/libnft.so.1"
    assert control_plane_images.merged("/usr/sbin/nft") == "usr/sbin/nft"
    for folder in ("usr/lib64", "usr/lib/x"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "usr/lib/x/ld.so").write_text("the loader")
    (tmp_path / "usr/lib64/ld.so.2").symlink_to("/lib/x/ld.so")
    assert control_plane_images.real(tmp_path, "usr/lib64/ld.so.2").read_text() == "the loader"


@pytest.mark.requirement("O6")
def test_an_image_is_made_anew_when_what_it_is_made_of_changes() -> None:
    """Another Debian or other programs have another key; the same have the same."""
    assert node_image.key("bookworm", "a") == node_image.key("bookworm", "a")
    assert len({node_image.key(*parts) for parts in (("bookworm", "a"), ("trixie", "a"), ("bookworm", "b"))}) == 3


@pytest.mark.requirement("O6")
def test_a_docker_begins_with_the_image_and_shares_its_layers(tmp_path: Path) -> None:
    """Small files are its own copies; layers are links, so that removing the cluster leaves them."""
    kept = tmp_path / "node" / "docker"
    for folder in ("image/overlay2", "overlay2/abc/diff", "overlay2/l"):
        (kept / folder).mkdir(parents=True)
    (kept / "image/overlay2/repositories.json").write_text("{}")
    (kept / "overlay2/l/SHORT").symlink_to("../abc/diff")
    (kept / "overlay2/abc/diff/file").write_text("of the layer")
    data = tmp_path / "data"
    node_image.NodeImage(tmp_path / "node", Path("/programs")).begin_with(data)
    assert (data / "overlay2/l/SHORT/file").read_text() == "of the layer"
    assert (data / "overlay2/abc").is_symlink()
    assert not (data / "image").is_symlink()


@pytest.mark.requirement("O6")
def test_a_layer_of_the_control_plane_has_its_links(tmp_path: Path) -> None:
    """An archive that holds the layer once: the first image brings it, the others name it."""
    layer = tmp_path / "layer.tar"
    with tarfile.open(layer, "w"):
        pass
    held = Layer.of(layer)
    archives = control_plane_images.archives(held, ["registry.k8s.io/etcd:1", "registry.k8s.io/pause:2"])
    found = []
    for index, write in enumerate(archives):
        with (tmp_path / f"{index}.tar").open("wb") as file:
            write(file)
        with tarfile.open(tmp_path / f"{index}.tar") as archive:
            found.append(f"blobs/{held.digest.replace(':', '/')}" in archive.getnames())
    assert found == [True, False]
