"""The protocols of the brokers that queues are measured against: what is sent, and what is made of what comes."""

from __future__ import annotations

import json
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial

import pytest

from benchmarks import amqp, flow, jetstream, nats, rabbit
from benchmarks.amqp import BODY, DELIVER, HEADER, METHOD, Amqp, Confirmed, Delivered, ack, frame, method, publish
from benchmarks.bench import Bench
from benchmarks.brokers import MEASURES, QUANTUM, Side
from benchmarks.flow import Carried
from benchmarks.nats import Message, Nats
from benchmarks.probes import Endpoint, MeasureFailed, Pace, request
from benchmarks.run_benchmarks import take
from benchmarks.wires import carry
from tests.servers import HOST

CONFIRMATION = ack(1, 7)
DELIVERY = (
    method(1, DELIVER, b"\1c" + struct.pack(">QB", 9, 0) + b"\0\4flow")
    + frame(HEADER, 1, struct.pack(">HHQH", 60, 0, 5, 0))
    + frame(BODY, 1, b"he")
    + frame(BODY, 1, b"llo")
)


@contextmanager
def answering(script: list[bytes]) -> Iterator[Endpoint]:
    """A server that answers whatever it is sent by the next line of its script, and then says nothing more."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            for line in script:
                self.request.recv(65536)
                self.request.sendall(line)
            while self.request.recv(65536):
                pass

    with socketserver.TCPServer((HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            host, port = server.server_address[:2]
            yield Endpoint(str(host), port)
        finally:
            server.shutdown()
            thread.join()


OPENING = [
    method(0, (10, 10)),
    method(0, (10, 30), struct.pack(">HLH", 2047, 131072, 60)),
    method(0, (10, 41), b"\0"),
]


def test_a_message_to_rabbit_is_three_frames() -> None:
    data = publish(3, "q", b"hello")
    kinds = []
    while data:
        kind, channel, size = struct.unpack_from(">BHL", data)
        assert (channel, data[7 + size : 8 + size]) == (3, b"\xce")
        kinds.append((kind, data[7 : 7 + size]))
        data = data[8 + size :]
    assert kinds == [
        (METHOD, b"\0\x3c\0\x28" + b"\0\0" + b"\0" + b"\1q" + b"\0"),
        (HEADER, b"\0\x3c\0\0" + b"\0\0\0\0\0\0\0\5" + b"\x10\x00\x02"),
        (BODY, b"hello"),
    ]


@pytest.mark.parametrize("size", [1, 10, 1_000])
def test_events_of_rabbit_are_told_however_they_arrive(size: int) -> None:
    with answering(OPENING) as endpoint, closing(Amqp(endpoint)) as connection:
        heard: list[Confirmed | Delivered] = []

        def talk() -> amqp.Talk:
            sent = b"first"
            while True:
                heard.append((yield sent))
                sent = b"next"

        connection.talks_on(1, talk())
        assert connection.start() == b"first"
        data = CONFIRMATION + DELIVERY + frame(8, 0, b"") + ack(1, 8, multiple=True)
        said = [connection.receive(data[at : at + size]) for at in range(0, len(data), size)]
    assert heard == [Confirmed(7, multiple=False), Delivered(9), Confirmed(8, multiple=True)]
    assert b"".join(said) == b"next" * 3


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (method(1, (20, 40), struct.pack(">H", 404) + b"\7no flow" + b"\0\0\0\0"), "RabbitMQ refused: no flow"),
        (method(1, (60, 120), struct.pack(">QB", 1, 0)), "did not take a message"),
    ],
)
def test_what_rabbit_refuses_is_told(data: bytes, why: str) -> None:
    with (
        answering(OPENING) as endpoint,
        closing(Amqp(endpoint)) as connection,
        pytest.raises(MeasureFailed, match=why),
    ):
        connection.receive(data)


def test_a_producer_waits_until_all_of_a_batch_is_confirmed() -> None:
    left = [4]
    talk = rabbit.producer(1, "q", b"x", messages=4, batch=2, left=left)
    batch = publish(1, "q", b"x") * 2
    assert next(talk) == batch
    assert (talk.send(Confirmed(2, multiple=False)), left) == (b"", [4])
    assert (talk.send(Confirmed(1, multiple=False)), left) == (batch, [2])
    assert (talk.send(Confirmed(4, multiple=True)), left) == (b"", [0])


def test_a_consumer_acknowledges_a_batch_at_once() -> None:
    left = [3]
    talk = rabbit.consumer(1, left, batch=2)
    assert next(talk) == b""
    assert [talk.send(Delivered(tag)) for tag in (1, 2, 3)] == [b"", ack(1, 2, multiple=True), b""]
    assert left == [0]


STORED = b'{"stream":"s","seq":5}'
PULLED = nats.publish(b"$JS.API.CONSUMER.MSG.NEXT.s.s", b'{"batch": 2, "expires": 600000000000}', b"in")


@pytest.mark.parametrize("size", [1, 10, 1_000])
def test_messages_of_nats_are_told_however_they_arrive(size: int) -> None:
    with answering([]) as endpoint, closing(Nats(endpoint)) as connection:
        heard: list[Message] = []

        def talk() -> nats.Talk:
            sent = b"first"
            while True:
                heard.append((yield sent))
                sent = b"next"

        connection.talks_as(1, talk())
        assert connection.start() == b"first"
        data = b"INFO {}\r\nPONG\r\nMSG in 1 3\r\na\r\n\r\nMSG s 1 back 5\r\nhello\r\nMSG in 1 0\r\n\r\n"
        said = [connection.receive(data[at : at + size]) for at in range(0, len(data), size)]
    assert heard == [Message(b"", b"a\r\n"), Message(b"back", b"hello"), Message(b"", b"")]
    assert b"".join(said) == b"next" * 3


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"-ERR 'Unknown'\r\n", "-ERR 'Unknown'"),
        (b"HMSG in 1 30 30\r\nNATS/1.0 408 Request Timeout\r\n\r\n", "NATS/1.0 408 Request Timeout"),
    ],
)
def test_what_nats_refuses_is_told(data: bytes, why: str) -> None:
    if data.startswith(b"HMSG"):
        status = data.partition(b"\r\n")[2]
        data = b"HMSG in 1 %d %d\r\n%b\r\n" % (len(status), len(status), status)
    with answering([]) as endpoint, closing(Nats(endpoint)) as connection, pytest.raises(MeasureFailed, match=why):
        connection.receive(data)


def test_a_producer_waits_until_the_stream_has_all_of_a_batch() -> None:
    left = [4]
    talk = jetstream.producer("s", b"in", b"x", messages=4, batch=2, left=left)
    batch = b"PUB s in 1\r\nx\r\n" * 2
    kept = Message(b"", STORED)
    assert next(talk) == batch
    assert [(talk.send(kept), left[0]) for _ in range(4)] == [(b"", 4), (batch, 2), (b"", 2), (b"", 0)]


def test_a_message_that_is_not_kept_is_told() -> None:
    talk = jetstream.producer("s", b"in", b"x", messages=1, batch=1, left=[1])
    next(talk)
    with pytest.raises(MeasureFailed, match="no leader"):
        talk.send(Message(b"", json.dumps({"error": {"description": "no leader"}}).encode()))


def test_a_consumer_of_nats_pulls_again_after_the_last_of_a_batch() -> None:
    left = [2]
    talk = jetstream.consumer("s", b"in", left, batch=2)
    assert next(talk) == PULLED
    assert talk.send(Message(b"back1", b"x")) == b"PUB back1  4\r\n+ACK\r\n"
    assert talk.send(Message(b"back2", b"x")) == b"PUB back2  4\r\n+ACK\r\n" + PULLED
    assert left == [0]


def test_a_consumer_that_wants_answers_pulls_again_after_the_last_of_them() -> None:
    left = [2]
    talk = jetstream.double_consumer("s", b"in", left, batch=2)
    assert next(talk) == PULLED
    assert talk.send(Message(b"back1", b"x")) == b"PUB back1 in 4\r\n+ACK\r\n"
    assert (talk.send(Message(b"", b"")), left) == (b"", [1])
    assert talk.send(Message(b"back2", b"x")) == b"PUB back2 in 4\r\n+ACK\r\n"
    assert (talk.send(Message(b"", b"")), left) == (PULLED, [0])


def test_what_all_have_left_to_do_is_counted_together() -> None:
    left = [5]
    one, other = flow.consumer("q", left), flow.pipelined_consumer("q", left, batch=2)
    pop = {size: request("Q.POP", "q", "COUNT", str(size), "BLOCK", "0") for size in (1, 2)}
    assert (next(one), next(other)) == (pop[1], pop[2])
    assert one.send([[b"a", b"x"]]) == request("Q.ACK", "q", "a")
    assert other.send([[b"b", b"x"], [b"c", b"x"]]) == request("Q.ACK", "q", "b", "c") + pop[2]
    assert (other.send(2), one.send(1), left) == (b"", pop[1], [2])
    sender = flow.producer("q", 2, left, batch=2)
    assert next(sender) == request("Q.MPUSH", "q", flow.PAYLOAD, flow.PAYLOAD)
    assert (flow.Resp(sender).receive(b"*2\r\n$1\r\nd\r\n$1\r\ne\r\n"), left) == (b"", [0])


def test_a_server_that_leaves_ends_the_loop() -> None:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)

    class Silent:
        def start(self) -> bytes:
            return b"hello"

        def receive(self, data: bytes) -> bytes:
            raise AssertionError(data)

    with socketserver.TCPServer((HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        host, port = server.server_address[:2]
        with (
            closing(Endpoint(str(host), port).connect()) as connection,
            pytest.raises(MeasureFailed, match="closed a connection"),
        ):
            carry([(connection, Silent())], lambda: False)
        thread.join()


def test_a_side_tells_medians_of_what_it_cost() -> None:
    used = iter([0.0, 1.0, 1.0, 4.0, 4.0, 6.0])
    pace = Pace()
    pace.seconds, pace.driver_share = 2.0, 0.25
    side = Side("theirs", lambda: Carried(1_000_000, pace), lambda: next(used))
    assert [side.sample() for _ in range(3)] == [500_000] * 3
    assert side.told() == "theirs: all nodes computed for 2 µs a message, the driver for 25% of the time"


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rabbit, "PROGRAM", "no-such-rabbit")
    monkeypatch.setattr(jetstream, "PROGRAM", "no-such-nats")
    with pytest.raises(MeasureFailed, match="apt-get install rabbitmq-server"), rabbit.rabbit_cluster():
        pass
    with pytest.raises(MeasureFailed, match="apt-get install nats-server"), jetstream.jetstream_cluster():
        pass
    with pytest.raises(MeasureFailed, match="sync_interval"), jetstream.jetstream_cluster(synced=True):
        pass


def test_no_measure_takes_an_outside_server() -> None:
    for one in MEASURES:
        result = take(one, Bench(outside=Endpoint(HOST, 1), divisor=20), 1, lambda: None)
        assert "leave out --server" in result.failed


def _there(find: Callable[[], object]) -> bool:
    """Whether a program is installed."""
    try:
        find()
    except MeasureFailed:
        return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(not _there(rabbit.script), reason="RabbitMQ is not installed")
@pytest.mark.usefixtures("any_pace")
def test_every_message_reaches_rabbit_and_its_consumers(monkeypatch: pytest.MonkeyPatch) -> None:
    with rabbit.rabbit_cluster() as cluster:
        assert cluster.pushed(50, QUANTUM, b"x").seconds > 0
        assert len(cluster.wakes(3, b"x")) == 3
        monkeypatch.setattr(rabbit, "CONNECTIONS", 3)
        for batch in (1, 32):
            assert cluster.worked_off(50, QUANTUM, b"x", batch).seconds > 0
        assert cluster.processor_seconds() > 0


@pytest.mark.slow
@pytest.mark.skipif(not _there(partial(jetstream.program, synced=False)), reason="NATS is not installed")
@pytest.mark.usefixtures("any_pace")
def test_every_message_reaches_nats_and_its_consumers(monkeypatch: pytest.MonkeyPatch) -> None:
    with jetstream.jetstream_cluster() as cluster:
        assert cluster.pushed(50, QUANTUM, b"x").seconds > 0
        assert len(cluster.wakes(3, b"x")) == 3
        monkeypatch.setattr(jetstream, "CONNECTIONS", 3)
        for consume in (jetstream.consumer, jetstream.double_consumer):
            for batch in (1, 32):
                assert cluster.worked_off(50, QUANTUM, b"x", batch, consume).seconds > 0
        assert cluster.processor_seconds() > 0
