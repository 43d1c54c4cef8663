"""Write the goldens anew: `python -m tests.unit.operator.regenerate`. Read the difference before committing it."""

from pathlib import Path

import yaml

from embedfleet.api import EmbeddingService
from embedfleet_operator import render
from embedfleet_operator.__main__ import to_json
from embedfleet_operator.render.site import INGRESS, SERVICE_MONITOR

GOLDENS = Path(__file__).parent / "goldens"
SITE = render.Site(
    server_image="registry.example/embedfleet-server:0.1.0",
    operator_namespace="embedfleet-system",
    apis=frozenset([INGRESS, SERVICE_MONITOR]),
    api_server_cidrs=("192.0.2.1/32",),
)
NAMES = sorted(path.stem for path in GOLDENS.glob("*.yaml"))


def manifest(name: str) -> EmbeddingService:
    """The service of a golden's manifest."""
    return EmbeddingService.model_validate(yaml.safe_load((GOLDENS / f"{name}.yaml").read_text(encoding="utf-8")))


def text(name: str) -> str:
    """What is rendered of it."""
    return to_json(render.objects(manifest(name), SITE))


if __name__ == "__main__":
    for golden in NAMES:
        (GOLDENS / f"{golden}.json").write_text(text(golden), encoding="utf-8")
