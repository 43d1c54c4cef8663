"""The commands that need a cluster, and their options; what they do is in `cluster`, imported when it is needed."""

from pathlib import Path
from typing import Annotated

import typer

from embedfleet.cli.reported import reported

Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace", "-n", help="Namespace in the cluster.  [default: $EMBEDFLEET_NAMESPACE, else the context's]"
    ),
]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig.  [default: its current one]")]
_Service = Annotated[str, typer.Argument(help="The service, in the cluster.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Give `app` these commands."""
    for command in (apply, describe, scale, delete, logs, doctor):
        app.command()(reported(command))


def apply(
    file: Annotated[Path, typer.Option("--file", "-f", help="The manifest.", show_default=False)],
    namespace: Namespace = None,
    context: Context = None,
    force: Annotated[bool, typer.Option("--force", help="Take over fields that another manager has set.")] = False,
) -> None:
    """Make or change a service in the cluster, by server-side apply."""
    from embedfleet.cli.cluster import applied

    print(applied(file, namespace, context, force=force))


def describe(service: _Service, namespace: Namespace = None, context: Context = None) -> None:
    """Tell all of a service in the cluster: its pods, models, conditions, events."""
    from embedfleet.cli.cluster import described
    from embedfleet.cli.target import Target

    print(described(Target(service, namespace, context)))


def scale(
    service: _Service,
    replicas: Annotated[int, typer.Option(min=0, max=1000, help="How many pods.", show_default=False)],
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Set the number of pods of a service in the cluster."""
    from embedfleet.cli.cluster import scaled
    from embedfleet.cli.target import Target

    print(scaled(Target(service, namespace, context), replicas))


def delete(service: _Service, namespace: Namespace = None, context: Context = None) -> None:
    """Delete a service of the cluster with all that belongs to it; its pods drain first."""
    from embedfleet.fleet import delete as delete_service

    delete_service(service, namespace=namespace, context=context)
    print(f"{service} is deleted; its pods drain and go")


def logs(
    service: _Service,
    namespace: Namespace = None,
    context: Context = None,
    tail: Annotated[int, typer.Option(min=1, help="Lines of each pod.")] = 100,
    previous: Annotated[bool, typer.Option("--previous", help="Of the container before the last restart.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what is written from now on.")] = False,
) -> None:
    """Print what the servers of a service in the cluster have written, each line with its pod."""
    from embedfleet.cli.cluster import print_logs
    from embedfleet.cli.target import Target

    print_logs(Target(service, namespace, context), tail, previous=previous, follow=follow)


def doctor(
    service: Annotated[str | None, typer.Argument(help="The service, or a model.", show_default=False)] = None,
    namespace: Namespace = None,
    context: Context = None,
    url: Annotated[str | None, typer.Option(help="Address of the service, instead of looking for it.")] = None,
    ca: Annotated[
        Path | None, typer.Option(help="File of certificates to trust.  [default: $EMBEDFLEET_CA_FILE]")
    ] = None,
) -> None:
    """Walk every route to a service and name what is in the way; exit status 1 when none leads there."""
    from embedfleet.diagnosis import doctor as diagnose

    found = diagnose(service, namespace=namespace, context=context, url=url, ca=ca)
    print(found)
    if not found.ok:
        raise typer.Exit(1)
