"""The measures of queues: what very many waiting messages take."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from itertools import count

from benchmarks.bench import Bench, Measure, Sampler, Samplers
from benchmarks.probes import LOAD_BATCH, Endpoint, MeasureFailed, command, memory_bytes, request, wait_for_checkpoint

PAYLOAD_BYTES = 100
FIRST_DUE_MS = 3_600_000
"""No delayed message is due before the measure is over."""

Samples = Callable[[Bench], AbstractContextManager[tuple[Sampler, Sampler | None]]]


def load_messages(endpoint: Endpoint, queue: str, messages: int, *, spread_ms: int = 0) -> None:
    """Pushes messages by pipelines; with ``spread_ms`` delayed ones, due all over that time."""
    payload = b"x" * PAYLOAD_BYTES
    with endpoint.connect() as connection, connection.makefile("rb") as replies:
        for first in range(0, messages, LOAD_BATCH):
            numbers = range(first, min(first + LOAD_BATCH, messages))
            delays = (
                ("DELAY", str(FIRST_DUE_MS + number * 7919 % spread_ms)) if spread_ms else () for number in numbers
            )
            connection.sendall(b"".join(request("Q.PUSH", queue, payload, *delay) for delay in delays))
            for _ in numbers:
                header, _id = replies.readline(), replies.readline()
                if not header.startswith(b"$"):
                    raise MeasureFailed(f"loading messages: Q.PUSH answered {header.strip()!r}")


def memory_per_message(spread_ms: int) -> Samples:
    """Growth of resident memory by each message beyond its payload, in bytes."""

    @contextmanager
    def samplers(bench: Bench) -> Samplers:
        names = count()

        def grown(endpoint: Endpoint) -> float:
            before = memory_bytes(endpoint)
            queue = f"queue {next(names)}"
            load_messages(endpoint, queue, bench.many_keys, spread_ms=spread_ms)
            wait_for_checkpoint(endpoint)
            after = memory_bytes(endpoint)
            ready = command(endpoint, "Q.LEN", queue)
            if ready != f":{0 if spread_ms else bench.many_keys}":
                raise MeasureFailed(f"Q.LEN answered {ready}")
            return (after - before) / bench.many_keys - PAYLOAD_BYTES

        with bench.ours() as ours:
            yield lambda: grown(ours), None

    return samplers


def _memory(name: str, what: str, spread_ms: int) -> Measure:
    title = f"memory per {what} message"
    return Measure(name, title, "B", "", 400.0, False, memory_per_message(spread_ms), repeats=False)


MEASURES = (
    _memory("queue-memory", "ready", 0),
    _memory("queue-memory-delayed", "delayed", FIRST_DUE_MS),
)
