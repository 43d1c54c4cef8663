"""What a service's objects look like: pure functions from the manifest to Kubernetes objects as plain mappings."""

from embedfleet.api import EmbeddingService
from embedfleet.api.pipelines import check, known
from embedfleet_operator.errors import CannotRender
from embedfleet_operator.observed.workload import Way
from embedfleet_operator.render import (
    config_maps,
    deployment,
    disruption_budget,
    ingress,
    network_policy,
    service_account,
    service_monitor,
)
from embedfleet_operator.render import service as service_object
from embedfleet_operator.render.metadata import Object, stamped
from embedfleet_operator.render.site import Site

__all__ = ["Object", "Site", "missing_apis", "objects"]


def objects(service: EmbeddingService, site: Site, way: Way = "Surge") -> list[Object]:
    """Every object of `service`, in the order in which they are to be applied; `CannotRender` when none can come of it.

    `way` is how new pods take the place of old ones just now.
    """
    _check_pipelines(service)
    made = [
        service_account.render(service),
        config_maps.models(service),
        config_maps.batching(service),
        service_object.render(service),
        disruption_budget.render(service),
        *network_policy.render(service, site),
        deployment.render(service, site.server_image, way),
        *_optional(service, site),
    ]
    return [stamped(child) for child in made]


def _check_pipelines(service: EmbeddingService) -> None:
    """`CannotRender` for what the server would refuse at its start, so that running pods stay as they are."""
    told = {model.name: known(model) for model in service.spec.models}
    if wrong := [str(one) for pipeline in service.spec.pipelines for one in check(pipeline, told)]:
        raise CannotRender("PipelineInvalid", "; ".join(wrong))


def missing_apis(service: EmbeddingService, site: Site) -> list[str]:
    """The types that `service` asks for and the API server does not know."""
    return [api for api in _asked(service) if api not in site.apis]


def _optional(service: EmbeddingService, site: Site) -> list[Object]:
    made = service_monitor.render(service) + ingress.render(service)
    return [child for child in made if f"{child['apiVersion']}/{child['kind']}" in site.apis]


def _asked(service: EmbeddingService) -> list[str]:
    return [
        f"{made['apiVersion']}/{made['kind']}" for made in service_monitor.render(service) + ingress.render(service)
    ]
