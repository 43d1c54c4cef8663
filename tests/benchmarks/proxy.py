"""`python -m tests.benchmarks.proxy`: 64-text batches through the API server's proxy against direct ones.

On a test cluster with one node: the real server in a pod, with a model that takes 10 ms for 64 texts and gives 384
dimensions, and a client in another pod. `MOST_REQUESTS` of the SDK's `kube/ways.py` is to be set from it: requests in
flight beyond which the way through the API server gives no more.
"""

import argparse
import json
import secrets
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from embedfleet.kube.access import proxying, rules
from embedfleet.kube.ways import MOST_REQUESTS
from tests.benchmarks.proxy_client import BATCH, WAYS
from tests.benchmarks.report import Goal, Section, milliseconds, show
from tests.cluster.cluster import Cluster
from tests.support import pods

CONCURRENCIES = (1, 2, 4, 8, 16, 32)
SECONDS = 1.5
"""Of each run."""
_FORWARD_SECONDS, _DIMENSIONS = 0.01, 384  # a small model on a GPU
_MOST_TIMES = 1.5
_NEAR = 0.95  # of the best speed: what more requests in flight add is not worth what they cost all users of a cluster
_SERVICE = "semantic"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Speed:
    """Medians over the repetitions: texts a second, and seconds of a batch."""

    texts: float
    usual: float
    late: float
    """The 95th percentile."""


Speeds = dict[tuple[str, int], Speed]
"""By way and requests in flight."""


def measure(
    say: Say, repetitions: int = 3, concurrencies: Sequence[int] = CONCURRENCIES, seconds: float = SECONDS
) -> Section:
    """Both ways with so many requests in flight at once."""
    with Cluster(nodes=1, say=say) as cluster:
        namespace = _served(cluster)
        say("the server is up, measuring")
        told = _client(cluster, namespace, (list(concurrencies), seconds, repetitions))
    return _section(_speeds(told), concurrencies)


def _served(cluster: Cluster) -> str:
    """The namespace of a service in one pod, whose default account may use the proxy."""
    namespace = f"bench-{secrets.token_hex(3)}"
    cluster.kubectl("create", "namespace", namespace)
    environ = {"FAKE_SECONDS": str(_FORWARD_SECONDS), "FAKE_DIMENSIONS": str(_DIMENSIONS)}
    batching = {"sizing": "Fixed", "maxBatchSize": BATCH, "initialBatchSize": BATCH, "maxQueuedRequests": 10_000}
    server = pods.server_pod("server", _SERVICE, guarded=True, environ=environ, batching=batching)
    role = f"""apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: proxy}}
rules:
{rules(proxying(_SERVICE, tls=False))}
"""
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=role)
    subject = f"--serviceaccount={namespace}:default"
    cluster.kubectl("-n", namespace, "create", "rolebinding", "proxy", "--role=proxy", subject)
    pods.put(cluster, namespace, pods.service_object(_SERVICE), server)
    pods.wait_ready(cluster, namespace, "server")
    return namespace


def _client(cluster: Cluster, namespace: str, plan: tuple[list[int], float, int]) -> list[pods.Plain]:
    """The lines that the client printed. Raises `CommandFailed` with its last ones when it failed."""
    concurrencies, seconds, repetitions = plan
    runs = len(WAYS) * len(concurrencies) * repetitions
    arguments = ", ".join(map(repr, (_SERVICE, namespace, pods.KEY, *plan)))
    program = f"from tests.benchmarks.proxy_client import main\nmain({arguments})"
    pods.put(cluster, namespace, pods.python_pod("client", program))
    pods.wait_succeeded(cluster, namespace, "client", seconds=60 + round(4 * seconds * runs))
    lines = cluster.kubectl("-n", namespace, "logs", "client").splitlines()
    return [json.loads(line) for line in lines]


def _speeds(told: list[pods.Plain]) -> Speeds:
    runs: dict[tuple[str, int], list[Speed]] = defaultdict(list)
    for run in told:
        taken = run["latencies"]
        late = quantiles(taken, n=20, method="inclusive")[-1] if len(taken) > 1 else taken[0]
        speed = Speed(len(taken) * BATCH / run["seconds"], median(taken), late)
        runs[run["way"], run["concurrency"]].append(speed)
    return {
        key: Speed(*(median(getattr(one, name) for one in found) for name in ("texts", "usual", "late")))
        for key, found in runs.items()
    }


def _section(speeds: Speeds, concurrencies: Sequence[int]) -> Section:
    columns = ("requests in flight", "direct: texts/s", "p50, p95", "proxy: texts/s", "p50, p95", "direct / proxy")
    title = f"Batches of {BATCH} texts, {_DIMENSIONS} dimensions, by the API server's proxy"
    section = Section(title, columns)
    for count in concurrencies:
        shown = [cell for way in WAYS for cell in _cells(speeds[way, count])]
        section.rows.append((str(count), *shown, f"{_times(speeds, count):.2f}"))
    enough = enough_in_flight({count: speeds["proxy", count].texts for count in concurrencies})
    section.notes += [
        f"By the proxy {enough} in flight give {_NEAR:.0%} of the best; the SDK's limit is {MOST_REQUESTS}.",
        f"The model takes {milliseconds(_FORWARD_SECONDS)} for {BATCH} texts and no processor; client, API server and"
        " pod share this machine.",
    ]
    if MOST_REQUESTS in concurrencies:
        times = _times(speeds, MOST_REQUESTS)
        wanted = f"by the proxy within {_MOST_TIMES} x of direct, {MOST_REQUESTS} in flight"
        section.goals.append(Goal(wanted, f"{times:.2f} x", times <= _MOST_TIMES))
    return section


def enough_in_flight(texts: dict[int, float]) -> int:
    """The least of the concurrencies that gives nearly the best speed; `texts` are texts a second of each."""
    best = max(texts.values())
    return min(count for count, speed in texts.items() if speed >= _NEAR * best)


def _times(speeds: Speeds, count: int) -> float:
    return speeds["direct", count].texts / speeds["proxy", count].texts


def _cells(speed: Speed) -> tuple[str, str]:
    return f"{speed.texts:,.0f}", f"{milliseconds(speed.usual)}, {milliseconds(speed.late)}"


def main() -> None:
    """This part by itself."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.proxy", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3, help="of each run (%(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each run (%(default)s)")
    given = parser.parse_args()
    show(measure(print, given.repetitions, seconds=given.seconds))


if __name__ == "__main__":
    main()
