"""kill -9 under load: whatever was acknowledged is there when the server comes back."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.conftest import StartSepakat
from tests.servers import Server, wait_until

ROUNDS = 4
WRITERS = 4


@dataclass
class Journal:
    """What one writer was told: the last value of each key it set, and the receipts and ids it got."""

    values: dict[bytes, bytes] = field(default_factory=dict)
    uncertain: dict[bytes, bytes] = field(default_factory=dict)
    counter: int = 0
    pushed: dict[bytes, bytes] = field(default_factory=dict)
    acknowledged: set[bytes] = field(default_factory=set)
    unsure_acknowledged: set[bytes] = field(default_factory=set)
    tokens: list[int] = field(default_factory=list)


def connect(port: int) -> Any:
    """A client; Any, as what redis-py says of its replies depends on options it cannot see."""
    return redis.Redis(port=port, socket_timeout=30, retry=Retry(NoBackoff(), 0))


def kill(server: Server) -> None:
    """As the power would."""
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()


def write_until(stop: threading.Event, port: int, name: str, journal: Journal, seed: int) -> None:
    """Sets, counts, pushes, acknowledges and locks until the server dies, writing down every reply."""
    chance = random.Random(seed)
    client = connect(port)
    queue = f"queue:{name}"
    with contextlib.suppress(redis.ConnectionError):
        while not stop.is_set():
            key, value = f"{name}:{chance.randrange(50)}".encode(), str(chance.random()).encode()
            journal.uncertain = {key: value}
            client.set(key, value)
            journal.values[key] = value
            journal.uncertain = {}
            client.incr(f"count:{name}")
            journal.counter += 1
            payload = str(chance.random()).encode()
            journal.pushed[client.execute_command("Q.PUSH", queue, payload)] = payload
            if chance.random() < 0.5:
                for receipt, _, _, message_id in client.execute_command("Q.POP", queue) or ():
                    journal.unsure_acknowledged.add(message_id)
                    assert client.execute_command("Q.ACK", queue, receipt) == 1
                    journal.acknowledged.add(message_id)
                    journal.unsure_acknowledged.discard(message_id)
            journal.tokens.append(client.execute_command("LOCK.ACQUIRE", f"lock:{name}", "me"))
            client.execute_command("LOCK.RELEASE", f"lock:{name}", "me")


def check(client: Any, name: str, journal: Journal) -> None:
    """What came back against what was told."""
    for key, value in journal.values.items():
        assert client.get(key) in (value, journal.uncertain.get(key)), key
    assert int(client.get(f"count:{name}") or 0) - journal.counter in (0, 1)
    in_flight = dict(client.execute_command("Q.INFO", f"queue:{name}"))[b"in-flight"]
    # Asked for afterwards: what was in flight may have come back by now, and nothing goes there any more.
    there = {
        message[3]: message[1] for message in client.execute_command("Q.PEEK", f"queue:{name}", "COUNT", 100_000) or ()
    }
    missing = {
        message_id
        for message_id in journal.pushed
        if message_id not in there and message_id not in journal.acknowledged | journal.unsure_acknowledged
    }
    assert len(missing) <= in_flight, "a message that was never acknowledged is gone"
    assert not journal.acknowledged & there.keys(), "an acknowledged message came back"
    assert all(there[message_id] == journal.pushed[message_id] for message_id in there.keys() & journal.pushed.keys())
    assert journal.tokens == sorted(set(journal.tokens)), "a token was given twice, or went back"


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", [False, True], ids=["log only", "while a checkpoint is written"])
def test_nothing_acknowledged_is_lost(start_sepakat: StartSepakat, checkpoint: bool) -> None:
    journals = {f"w{number}": Journal() for number in range(WRITERS)}
    chance = random.Random(7)
    for round_number in range(ROUNDS):
        server = start_sepakat("--checkpoint-log-bytes", "64kb") if checkpoint else start_sepakat()
        client = connect(server.port)
        for name, journal in journals.items():
            if round_number:
                check(client, name, journal)
            journal.uncertain = {}
            journal.values = {key: client.get(key) for key in journal.values}
            journal.counter = int(client.get(f"count:{name}") or 0)
            client.execute_command("LOCK.BREAK", f"lock:{name}")  # held still if the server died before its release
        stop = threading.Event()
        writers = [
            threading.Thread(target=write_until, args=(stop, server.port, name, journal, chance.randrange(2**32)))
            for name, journal in journals.items()
        ]
        for writer in writers:
            writer.start()
        wait_until(lambda: all(journal.tokens for journal in journals.values()))
        time.sleep(0.5 + chance.random())  # how long there is load: any moment is a good one to die
        kill(server)
        stop.set()
        for writer in writers:
            writer.join()
    last = connect(start_sepakat().port)
    for name, journal in journals.items():
        check(last, name, journal)


def restarted(start_sepakat: StartSepakat, server: Server) -> Any:
    """Kills a server and connects to the next one on the same folder."""
    kill(server)
    return connect(start_sepakat().port)


def test_deadlines_and_locks_survive(start_sepakat: StartSepakat) -> None:
    server = start_sepakat()
    client = connect(server.port)
    client.set("short", 1, px=1)
    client.set("long", 1, ex=1000)
    token = client.execute_command("LOCK.ACQUIRE", "lock", "me", "PX", 100_000)
    client.execute_command("LOCK.ACQUIRE", "mine", "me", "SESSION")
    client.execute_command("Q.PUSH", "queue", "late", "DELAY", 100_000)
    client = restarted(start_sepakat, server)
    assert client.get("short") is None
    assert 900 < client.ttl("long") <= 1000
    lock = client.execute_command("LOCK.INFO", "lock")
    assert lock[b"token"] == token
    assert 0 < lock[b"holders"][0][b"ttl-ms"] <= 100_000
    assert client.execute_command("LOCK.INFO", "mine")[b"mode"] == b"free", "its session died with the server"
    assert client.execute_command("LOCK.ACQUIRE", "lock", "you") is None
    assert client.execute_command("LOCK.ACQUIRE", "mine", "you") > token
    assert client.execute_command("Q.LEN", "queue") == 0
    assert client.execute_command("Q.INFO", "queue")[b"delayed"] == 1


def test_a_graceful_stop_answers_what_is_in_flight(start_sepakat: StartSepakat) -> None:
    server = start_sepakat()
    with server.connect() as connection:
        connection.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n" * 1000)
        connection.recv(5)
        server.process.send_signal(signal.SIGTERM)
        received = 5
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(65536):
                received += len(data)
    assert server.process.wait(30) == 0
    assert received % 5 == 0
    client = connect(start_sepakat().port)
    assert client.get("a") == b"1"


@pytest.mark.parametrize("end", ["SHUTDOWN", "SHUTDOWN NOSAVE"])
def test_shutdown_exits_cleanly(start_sepakat: StartSepakat, end: str) -> None:
    server = start_sepakat()
    client = connect(server.port)
    client.set("a", 1)
    with pytest.raises(redis.ConnectionError):
        client.execute_command(end)
    assert server.process.wait(30) == 0
    assert connect(start_sepakat().port).get("a") == b"1"


def test_a_clock_that_jumps_back_revives_nothing(start_sepakat: StartSepakat) -> None:
    """The log remembers how late it was, so a restart under an earlier clock cannot bring back what had ended."""
    server = start_sepakat()
    client = connect(server.port)
    client.set("gone", 1, px=50)
    wait_until(lambda: client.get("gone") is None)
    client.set("later", 1, px=100_000)
    ttl_ms = client.pttl("later")
    client = restarted(start_sepakat, server)
    assert client.get("gone") is None
    assert client.pttl("later") <= ttl_ms
