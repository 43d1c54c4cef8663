"""All services that there are, and those of a cluster made and deleted: `services`, `apply`, `delete`."""

from collections.abc import Sequence

from embedfleet import card, environment
from embedfleet.api import EmbeddingService
from embedfleet.api.local import LocalRecord, read_records
from embedfleet.errors import BadInput, ClusterError, Forbidden, NoCluster
from embedfleet.kube import access, config, lookup, objects
from embedfleet.kube.api import CONNECT_SECONDS, ApiServer, Tree
from embedfleet.kube.credentials import Credentials
from embedfleet.kube.lookup import Scope
from embedfleet.kube.record import read
from embedfleet.managing import ClusterService, Place
from embedfleet.portal import portal

_HEADS = ("service", "where", "state", "url", "models")


class Services(list[LocalRecord | ClusterService]):
    """Services, those of this machine first; `notes` says what could not be looked into."""

    def __init__(self, found: Sequence[LocalRecord | ClusterService], notes: Sequence[str] = ()) -> None:
        super().__init__(found)
        self.notes = tuple(notes)

    def __repr__(self) -> str:
        return "\n".join([*("  ".join(row) for row in self._rows()), *self.notes]) or "no services"

    def _repr_html_(self) -> str:
        notes = [card.table((), [[note]]) for note in self.notes]
        return card.box([card.table(_HEADS, self._rows()) if self else "no services", *notes])

    def _rows(self) -> list[list[str]]:
        return [_row(one) for one in self]


def services(*, namespace: str | None = None, context: str | None = None) -> Services:
    """The services that run on this machine, then those of the cluster that may be seen, by name.

    Args:
        namespace: of the cluster, this one alone (also EMBEDFLEET_NAMESPACE). None: all, or the context's where a user
            may not see them all.
        context: of the kubeconfig. None: its current one.

    A cluster that cannot be asked is no error: the answer's `notes` say why.
    """
    here = read_records(environment.read().records)
    try:
        return Services([*here, *portal().run(lambda _: in_cluster(namespace, context))])
    except NoCluster as error:
        return Services(here, [] if context is None else [str(error)])
    except ClusterError as error:
        return Services(here, [str(error)])


def apply(
    service: EmbeddingService, *, namespace: str | None = None, context: str | None = None, force: bool = False
) -> ClusterService:
    """Make or change a service of the cluster: server-side apply of the fields that are set, by a manager of our own.

    Args:
        service: as in a manifest.
        namespace: None: the manifest's, EMBEDFLEET_NAMESPACE, the context's.
        context: of the kubeconfig. None: its current one.
        force: take over fields that another manager (kubectl, Argo CD) has set; else such a conflict is an error.

    Raises `ClusterRefused` in the API server's words, `Forbidden` with the rule that is missing, other `ClusterError`s;
    `BadInput` for what is no `EmbeddingService`.
    """
    given: object = service  # a manifest that was read as a dict is the mistake to make
    if not isinstance(given, EmbeddingService):
        text = f"service is of type {type(given).__name__}; it must be an EmbeddingService, which"
        raise BadInput(f"{text} EmbeddingService.model_validate makes of a manifest")

    async def work() -> ClusterService:
        place = enter(service.metadata.name, namespace or service.metadata.namespace, context)
        async with ApiServer(place.credentials) as api:
            return ClusterService(place, await objects.apply(api, place.namespace, service, force=force))

    return portal().run(lambda _: work())


def delete(name: str, *, namespace: str | None = None, context: str | None = None) -> None:
    """Delete a service of the cluster with all that belongs to it; its pods drain first.

    Raises `ServiceNotFound`, `Forbidden` with the rule that is missing, other `ClusterError`s.
    """
    portal().run(lambda _: enter(name, namespace, context).delete())


def enter(name: str, namespace: str | None, context: str | None) -> Place:
    """The service `name` of a cluster, whether it is there or not. Raises `NoCluster`."""
    around = environment.read()
    credentials = Credentials(config.entered(context, around))
    return Place(credentials, namespace or around.namespace or credentials.context.namespace, name)


async def in_cluster(namespace: str | None, context: str | None) -> list[ClusterService]:
    """The services of a cluster, by namespace and name. Raises `Forbidden` when not even the context's may be seen."""
    credentials, found = await objects_in(namespace, context)
    records = [read(tree) for tree in found]
    return [ClusterService(Place(credentials, one.namespace, one.service), one) for one in sorted(records, key=str)]


async def objects_in(namespace: str | None, context: str | None) -> tuple[Credentials, list[Tree]]:
    """The same as the objects that they are, and by whose eyes they were seen."""
    around = environment.read()
    credentials = Credentials(config.entered(context, around))
    async with ApiServer(credentials, CONNECT_SECONDS) as api:
        scope = lookup.scope(namespace, around.namespace, credentials.context.namespace)
        return credentials, await _seen(api, scope)


async def _seen(api: ApiServer, scope: Scope) -> list[Tree]:
    found = None if scope.is_given else await lookup.trees(api, None)
    if found is None:
        found = await lookup.trees(api, scope.namespace)
    if found is None:
        text = f"the services in namespace {scope.namespace!r} of {api.where} may not be listed; a Role needs this rule"
        raise Forbidden(f"{text}:\n{access.SEE_ALL}", access.SEE_ALL)
    return found


def _row(one: LocalRecord | ClusterService) -> list[str]:
    if isinstance(one, LocalRecord):
        return [one.service, "this machine", "", one.url, ", ".join(one.models)]
    return [one.service, f"namespace {one.namespace}", one.state, one.url or "", ", ".join(one.models)]
