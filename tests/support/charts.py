"""Helm at work on the project's chart: rendered, installed, and as an older version of itself."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.errors import CommandFailed

Plain = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "embedfleet"
CRD = "embeddingservices.embedfleet.dev"
RELEASE = "embedfleet"
KUBERNETES = "1.35.4"
"""What `helm template` is to take the cluster for: helm as built here knows no version."""


@dataclass(frozen=True)
class Helm:
    """The program, with files of its own under `home`, against the cluster of `kubeconfig` if there is one."""

    program: Path
    home: Path
    kubeconfig: Path | None = None
    namespace: str = "default"

    def run(self, *arguments: str, values: Mapping[str, Any] | None = None) -> str:
        """What `helm ARGUMENTS` printed, with these values set, by their dotted paths. Raises `CommandFailed`."""
        pairs = [f"{key}={json.dumps(value)}" for key, value in (values or {}).items()]
        given = [option for pair in pairs for option in ("--set-json", pair)]
        command = [str(self.program), *arguments, "--namespace", self.namespace, *given]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environ(), check=False)
        if done.returncode != 0:
            said = f"{done.stdout.strip()} {done.stderr.strip()}"
            raise CommandFailed(f"helm {' '.join(arguments)}: status {done.returncode}: {said}")
        return done.stdout

    def install(self, values: Mapping[str, Any] | None = None, *, chart: Path = CHART) -> str:
        """The notes of the release `embedfleet`; its pods are not waited for."""
        return self.run("install", RELEASE, str(chart), values=values)

    def upgrade(self, values: Mapping[str, Any] | None = None, *, chart: Path = CHART) -> str:
        """The notes of its next revision; values that the one before was given are kept."""
        return self.run("upgrade", RELEASE, str(chart), "--reset-then-reuse-values", values=values)

    def uninstall(self) -> str:
        """What is said of it, once everything that goes is gone."""
        return self.run("uninstall", RELEASE, "--wait", "--timeout", "180s")

    def template(self, values: Mapping[str, Any] | None = None, *options: str) -> list[Plain]:
        """Its objects."""
        arguments = ("template", RELEASE, str(CHART), "--kube-version", KUBERNETES, *options)
        return [one for one in yaml.safe_load_all(self.run(*arguments, values=values)) if one]

    def _environ(self) -> dict[str, str]:
        """What helm and its library remember stays here: the next cluster may have the same address."""
        folders = {name: str(self.home / name) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
        whom = {"KUBECONFIG": str(self.kubeconfig or os.devnull), "KUBECACHEDIR": str(self.home / "kube")}
        return {**os.environ, **folders, **whom}


def one(objects: list[Plain], kind: str, name: str | None = None) -> Plain:
    """The only object of this kind, or of this kind and name."""
    (found,) = [each for each in objects if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    return found


def copied(to: Path, version: str, app_version: str) -> Path:
    """The chart of now in a folder of its own, as if it were of this version."""
    made = Path(shutil.copytree(CHART, to / f"embedfleet-{version}"))
    told = yaml.safe_load((made / "Chart.yaml").read_text(encoding="utf-8"))
    told |= {"version": version, "appVersion": app_version}
    (made / "Chart.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
    return made


def spec_fields(definition: Mapping[str, Any]) -> Plain:
    """The fields of an EmbeddingService's spec, as a CRD has them."""
    fields: Plain = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    return fields


def without_field(chart: Path, field: str) -> Path:
    """`chart`, with a CRD whose spec lacks an optional field, as before that was thought of."""
    file = chart / "generated" / "crds" / f"{CRD}.yaml"
    definition = yaml.safe_load(file.read_text(encoding="utf-8"))
    del spec_fields(definition)[field]
    file.write_text(yaml.safe_dump(definition, sort_keys=False), encoding="utf-8")
    return chart
