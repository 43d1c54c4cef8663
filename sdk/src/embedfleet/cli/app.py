"""The commands and their options; what they do is in a module each, imported when it is needed."""

import enum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from embedfleet.cli.cluster_commands import Context, Namespace, register
from embedfleet.cli.reported import reported

app = typer.Typer(
    help="Text embeddings from your own service.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

HIGHEST_PORT = 65535


class InputType(enum.StrEnum):
    """What the texts are for."""

    query = "query"
    document = "document"


class Format(enum.StrEnum):
    """How `get` prints."""

    table = "table"
    json = "json"
    yaml = "yaml"


Manifest = Annotated[Path, typer.Option("--file", "-f", help="The manifest.", show_default=False)]
Port = Annotated[int, typer.Option(min=0, max=HIGHEST_PORT, help="Public port; 0 takes a free one.")]
ObservePort = Annotated[
    int | None,
    typer.Option(
        min=0, max=HIGHEST_PORT, help="Observation port; 0 takes a free one.  [default: the public port's next]"
    ),
]
Store = Annotated[
    Path | None,
    typer.Option(help="Local store of weights.  [default: $EMBEDFLEET_STORE, else ~/.cache/embedfleet/weights]"),
]
Name = Annotated[str | None, typer.Option(help="Name of the service, or of a model.  [default: the only service]")]
Model = Annotated[str | None, typer.Option(help="Model of the service.  [default: the service's own default]")]
Purpose = Annotated[InputType | None, typer.Option(help="What the texts are for: chooses the model's prompt.")]
Url = Annotated[str | None, typer.Option(help="Address of the service, instead of looking for it.")]
Output = Annotated[Path | None, typer.Option(help="File to write, whole or not at all.  [default: standard output]")]
As = Annotated[Format, typer.Option("--output", "-o", help="How to print.")]


@app.command()
@reported
def serve(
    file: Manifest,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Port = 8080,
    observe_port: ObservePort = None,
    store: Store = None,
    api_keys: Annotated[
        Path | None, typer.Option(help="Directory of API keys, a file for each tenant.  [default: no key is asked]")
    ] = None,
    tls: Annotated[Path | None, typer.Option(help="Directory with tls.crt and tls.key.  [default: plain HTTP]")] = None,
) -> None:
    """Run a manifest here; Ctrl-C drains and stops it."""
    from embedfleet.cli.serving import Guarded, become_server

    become_server(file, host, port, observe_port, store, Guarded(api_keys, tls))


@app.command()
@reported
def embed(
    service: Name = None,
    model: Model = None,
    input_type: Purpose = None,
    url: Url = None,
    namespace: Namespace = None,
    context: Context = None,
    output: Output = None,
) -> None:
    """Embed each line of standard input; the vectors go out as one .npy file, float32, a row for each line."""
    from embedfleet.cli.embedding import Wanted, embed_lines

    purpose: dict[InputType | None, Literal["query", "document"] | None]
    purpose = {None: None, InputType.query: "query", InputType.document: "document"}
    embed_lines(Wanted(service, url, model, purpose[input_type], namespace, context), output)


@app.command()
@reported
def run(
    pipeline: Annotated[str, typer.Argument(help="The pipeline.", show_default=False)],
    service: Name = None,
    url: Url = None,
) -> None:
    """Run a pipeline on each line of standard input, a text or JSON; a line of JSON goes out for each, in order."""
    from embedfleet.cli.running import Wanted, run_lines

    run_lines(Wanted(pipeline, service, url))


@app.command()
@reported
def get(
    name: Annotated[str | None, typer.Argument(help="One service.  [default: all]", show_default=False)] = None,
    namespace: Namespace = None,
    context: Context = None,
    output: As = Format.table,
) -> None:
    """List the services that run on this machine and those of the cluster, where there is a kubeconfig."""
    from embedfleet.cli.getting import listed
    from embedfleet.cli.target import Target

    print(listed(Target(name, namespace, context), output.value))


@app.command()
@reported
def validate(file: Manifest) -> None:
    """Check a manifest; every mistake is named, and the exit status is 2 when there is one."""
    from embedfleet.manifest import load

    service = load(file)
    names = ", ".join(model.name for model in service.spec.models)
    print(f"{file} is valid: service {service.metadata.name}, models {names}")


@app.command()
@reported
def version() -> None:
    """Print the version."""
    from embedfleet.version import __version__

    print(f"embedfleet {__version__}")


Service = Annotated[str, typer.Argument(help="The service; it must run on this machine.", show_default=False)]
Anywhere = Annotated[str, typer.Argument(help="The service: on this machine, else in the cluster.", show_default=False)]
OneModel = Annotated[str | None, typer.Option(help="This model alone.  [default: all of the service]")]


@app.command()
@reported
def pause(service: Anywhere, model: OneModel = None, namespace: Namespace = None, context: Context = None) -> None:
    """Start no further batches; queued work stays, new work is admitted up to the bound."""
    _control_or_patch(service, "pause", model, namespace, context)


@app.command()
@reported
def resume(service: Anywhere, model: OneModel = None, namespace: Namespace = None, context: Context = None) -> None:
    """Go on after a pause, oldest first."""
    _control_or_patch(service, "resume", model, namespace, context)


@app.command(name="set")
@reported
def set_values(
    service: Anywhere,
    values: Annotated[list[str], typer.Argument(help="Fields of spec.batching, as in maxBatchSize=64.")],
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Override batching values of a running server, until `unset` or its end; in a cluster, change the manifest's."""
    from embedfleet.cli.controlling import assignments, is_meant_here
    from embedfleet.cli.target import Target

    target = Target(service, namespace, context)
    if is_meant_here(target):
        _control(service, "set", assignments(values))
        return
    from embedfleet.cli.cluster import set_batching

    print(set_batching(target, assignments(values)))


@app.command()
@reported
def unset(service: Service) -> None:
    """Take every override of a running server back."""
    _control(service, "unset", {})


@app.command()
@reported
def stats(service: Service, output: As = Format.table) -> None:
    """Show queues, counts, values in force and overrides of a running server."""
    _control(service, "stats", None, output)


def _control_or_patch(service: str, path: str, model: str | None, namespace: str | None, context: str | None) -> None:
    from embedfleet.cli.controlling import is_meant_here
    from embedfleet.cli.target import Target

    target = Target(service, namespace, context)
    if is_meant_here(target):
        _control(service, path, {} if model is None else {"model": model})
        return
    from embedfleet.cli.cluster import set_paused

    print(set_paused(target, model, paused=path == "pause"))


def _control(service: str, path: str, values: dict[str, Any] | None, output: Format = Format.table) -> None:
    from embedfleet.cli.controlling import command, shown
    from embedfleet.cli.printing import text_of

    state = command(service, path, values)
    print(shown(state) if output is Format.table else text_of(state, output.value))


register(app)
