"""The reactor: what a turn does in which order, whom it closes, and its place among Trio's other tasks."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from cluster.raft.messages import Alive, AskRead, Message
from resp_server.edge.clock import Clock
from resp_server.edge.disk import Disk
from resp_server.edge.poller import READ, EpollPoller
from resp_server.edge.reactor import PAUSE_MS, Reactor
from resp_server.lapses import Lapses
from resp_server.protocol.requests import Limits
from resp_server.session import Session
from resp_server.settings import load
from tests.front import START_MS, Front
from tests.raw_client import packed

SET = packed("SET", "a", "1")
GET = packed("GET", "a")
POLLS_MAX = 1_000_000
NOBODY = 1_000_000  # no socket of ours has this descriptor


class NearPoller(EpollPoller):
    """Never anything at once, always something within a moment: a client that sends one request after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.polls = 0
        self.poll = self.near

    def near(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
        """What `poll` gives."""
        self.polls += 1
        assert self.polls < POLLS_MAX, "nothing else ever had its turn"
        return [(NOBODY, READ)] if timeout else []


@pytest.fixture
def disk() -> Iterator[tuple[Front, Disk]]:
    front = Front()
    disk = Disk(front.server, front.storage)
    yield front, disk
    disk.close()


@pytest.mark.trio
async def test_a_client_that_never_pauses_starves_nothing_else(
    disk: tuple[Front, Disk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resp_server.edge.reactor.new_poller", NearPoller)
    front, work = disk
    reactor = Reactor(front.server, front.dispatcher, work, Clock(0), Limits(), 10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)
        for _ in range(3):
            await trio.sleep(0)
        nursery.cancel_scope.cancel()
    reactor.close()


class SetClock(Clock):
    """Shows what it is set to."""

    def __init__(self) -> None:
        super().__init__(0)
        self.set(START_MS)

    def set(self, ms: int) -> None:
        self.ms = ms

    def now_ms(self) -> int:
        self.monotonic_ns = self.ms * 1_000_000
        return self.ms


class Rig:
    """A reactor with one client, turned by hand; ``steps`` are the calls of what was spied on."""

    def __init__(self) -> None:
        self.front = Front()
        self.node = self.front.node
        self.disk = Disk(self.front.server, self.front.storage)
        self.clock = SetClock()
        self.reactor = Reactor(self.front.server, self.front.dispatcher, self.disk, self.clock, Limits(), 10)
        self.sockets: list[socket.socket] = []
        self.client = self.pair(lambda near: self.reactor._welcome(near, ""))
        (self.session,) = self.front.server.clients.values()
        self.steps: list[str] = []
        self.reactor.turn([])

    def pair(self, take: Callable[[socket.socket], object]) -> socket.socket:
        """A connection: hands one end over and gives the other."""
        near, far = socket.socketpair()
        near.setblocking(False)
        far.settimeout(10)
        self.sockets += [near, far]
        take(near)
        return far

    def link(self) -> socket.socket:
        """A peer's connection."""

        def take(near: socket.socket) -> None:
            self.reactor._poller.watch(near.fileno(), READ)
            self.reactor.links.adopt("n2", near)

        return self.pair(take)

    def spy(self, owner: object, *names: str) -> None:
        """Notes calls of these methods."""
        for name in names:
            setattr(owner, name, self._noted(name, getattr(owner, name)))

    def _noted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **more: Any) -> Any:
            self.steps.append(name)
            return method(*args, **more)

        return noted

    def spy_on_the_core(self) -> None:
        self.spy(self.node, "tick", "ready", "outgoing", "apply")
        self.spy(self.disk, "commit")

    def turn(self, data: bytes = b"") -> None:
        """One turn, with this from the client."""
        if data:
            self.client.sendall(data)
        self.reactor.turn(self.reactor._poller.poll(0))

    def close(self) -> None:
        for connection in list(self.reactor._connections.values()):
            self.reactor._drop(connection)
        self.reactor.close()
        self.disk.close()
        for one in self.sockets:
            one.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def test_a_write_goes_to_the_others_before_the_disk_and_is_answered_behind_it(rig: Rig) -> None:
    rig.spy_on_the_core()
    rig.turn(SET)
    assert rig.steps == ["tick", "ready", "outgoing", "commit", "apply", "outgoing"]
    assert rig.client.recv(100) == b"+OK\r\n"


def test_a_turn_of_reads_leaves_the_core_alone(rig: Rig) -> None:
    rig.spy_on_the_core()
    rig.turn(GET)
    assert rig.steps == []
    assert rig.client.recv(100) == b"$-1\r\n"


def test_the_core_has_its_turn_among_nothing_but_reads(rig: Rig) -> None:
    rig.spy_on_the_core()
    rig.clock.set(START_MS + 1000)
    rig.turn(GET)
    assert "tick" in rig.steps


def test_timers_and_answers_go_on_while_the_disk_is_at_it(rig: Rig) -> None:
    rig.spy_on_the_core()
    rig.disk.under_way = True
    rig.turn(SET)
    assert rig.steps == ["tick", "apply", "outgoing"]
    rig.disk.under_way = False
    rig.turn()
    assert rig.client.recv(100) == b"+OK\r\n"


def test_what_was_read_under_a_lease_that_ran_out_is_not_sent(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    other = rig.pair(lambda near: rig.reactor._welcome(near, ""))
    verdict = read_in_doubt(rig, monkeypatch, SET, other)
    with pytest.raises(BlockingIOError):
        rig.client.recv(100)
    assert other.recv(100) == b"+OK\r\n", "a write is answered by the log"
    verdict[0] = False
    rig.turn()
    assert rig.client.recv(100) == b""


def test_what_was_read_under_a_lease_is_sent_once_it_is_certain(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = read_in_doubt(rig, monkeypatch)
    rig.turn(SET)
    with pytest.raises(BlockingIOError):
        rig.client.recv(100)
    verdict[0] = True
    rig.turn()
    assert rig.client.recv(100) == b"$-1\r\n+OK\r\n", "in the order it was asked"


def test_what_lines_had_of_several_keys_is_not_sent_with_the_rest(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.client.settimeout(1)
    rig.turn(packed("CACHE.GET", "a"))
    rig.turn()
    assert rig.client.recv(100) == b"$-1\r\n"
    verdict = read_in_doubt(rig, monkeypatch, call=packed("CACHE.MGET", "a", "b"))
    for _ in range(3):
        rig.turn()
    with pytest.raises(BlockingIOError):
        rig.client.recv(100)
    verdict[0] = False
    rig.turn()
    assert rig.client.recv(100) == b""


def read_in_doubt(
    rig: Rig,
    monkeypatch: pytest.MonkeyPatch,
    others: bytes = b"",
    other: socket.socket | None = None,
    call: bytes = GET,
) -> list[bool | None]:
    """Has the client read in a turn in which the lease runs out; what becomes of it can be set in the list."""
    verdict: list[bool | None] = [None]
    with monkeypatch.context() as patch:
        lapsed = iter([True])
        patch.setattr(rig.node, "reads_lapsed", lambda monotonic_ms: next(lapsed, False))
        patch.setattr(rig.node, "doubt", lambda monotonic_ms: SimpleNamespace(verdict=lambda: verdict[0]))
        if other is not None:
            other.sendall(others)
        rig.client.setblocking(False)
        rig.turn(call)
    return verdict


def lapse(rig: Rig, monkeypatch: pytest.MonkeyPatch, *found: list[Session]) -> None:
    """Has the sessions lapse that are found so, look after look."""
    coming = iter(found)
    monkeypatch.setattr(Lapses, "next_ms", 0.0)
    monkeypatch.setattr(Lapses, "look", lambda lapses, now_ms: next(coming, []))


def test_who_lapsed_is_closed_before_anything_is_done_for_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    other = rig.pair(lambda near: rig.reactor._welcome(near, ""))
    lapse(rig, monkeypatch, [rig.session])
    rig.turn(SET)
    assert closed_by(rig.client)
    other.sendall(GET)
    rig.turn()
    assert other.recv(100) == b"$-1\r\n", "nothing was written"
    assert rig.front.server.stats.lapse_disconnections == 1


def test_who_lapsed_while_the_process_was_stopped_in_a_turn_is_not_answered(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    lapse(rig, monkeypatch, [], [rig.session])
    rig.turn(SET)
    assert closed_by(rig.client)


def closed_by(client: socket.socket) -> bool:
    """Whether the other end is closed, and has said nothing before."""
    try:
        return client.recv(100) == b""
    except ConnectionResetError:  # with something left unread there
        return True


def hear(rig: Rig, monkeypatch: pytest.MonkeyPatch, *mails: list[tuple[str, int, Message]]) -> None:
    """Lets the links bring this mail, look after look."""
    coming = iter(mails)

    def brought(ready: Iterable[tuple[int, int]]) -> list[tuple[str, int, Message]]:
        rig.steps.append("hear")
        return next(coming)

    monkeypatch.setattr(rig.reactor.links, "hear", brought)
    rig.spy(rig.node, "advance", "receive", "tick")


def test_mail_is_read_before_the_time_is_taken(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a heartbeat would count from before it was sent, and its sender's lease on it would be too long."""
    rig.link()
    hear(rig, monkeypatch, [("n2", 0, AskRead(0, b"n2.b", 1))])
    rig.turn()
    assert rig.steps == ["hear", "advance", "receive", "tick"]


SIGN_OF_LIFE: Message = Alive(0, 1, True)


def test_signs_of_life_are_one_turn_s_work(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of all nodes come at about the same time; whatever else comes is not kept waiting."""
    rig.link()
    monkeypatch.setattr("resp_server.edge.reactor.GATHER_MS", 60_000)
    monkeypatch.setattr(rig.reactor._poller, "poll", lambda timeout_s: [])
    signs = [[(peer, 0, SIGN_OF_LIFE)] for peer in ("n2", "n3", "n4")]
    hear(rig, monkeypatch, *signs, [("n2", 0, SIGN_OF_LIFE), ("n2", 0, AskRead(0, b"n2.b", 1))])
    rig.reactor._serving = False
    rig.reactor.turn([])
    assert rig.steps == ["hear"] * 4 + ["advance"] + ["receive"] * 5 + ["tick"]


def test_a_client_waits_for_no_sign_of_life(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.link()
    hear(rig, monkeypatch, [("n2", 0, SIGN_OF_LIFE)])
    rig.reactor._serving = False
    rig.turn(GET)
    assert rig.steps == ["hear", "advance", "receive", "tick"]
    assert rig.client.recv(100) == b"$-1\r\n"


def test_who_serves_does_not_wait_for_signs_of_life(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.link()
    rig.turn(SET)
    hear(rig, monkeypatch, [("n2", 0, SIGN_OF_LIFE)])
    rig.turn()
    assert rig.steps == ["hear", "advance", "receive", "tick"]


def test_after_a_long_pause_mail_is_read_before_timers_run(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process may have been stopped after it looked for mail: what has come since says who leads."""
    rig.link()
    hear(rig, monkeypatch, [], [("n2", 0, AskRead(0, b"n2.b", 1))])
    rig.clock.set(START_MS + PAUSE_MS + 1)
    rig.turn()
    assert rig.steps == ["hear", "advance", "hear", "advance", "receive", "tick"]


def pause_before_commands(rig: Rig, monkeypatch: pytest.MonkeyPatch, pause_ms: int) -> None:
    """The process is stopped for so long after a turn began, and only then reads what its client asks."""
    execute = rig.front.dispatcher.execute

    def late(session: Session, commands: list[list[bytes]]) -> None:
        rig.clock.set(START_MS + pause_ms)
        execute(session, commands)

    monkeypatch.setattr(rig.front.dispatcher, "execute", late)


def test_who_asked_late_in_a_turn_is_answered_by_what_holds_then(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that stood when the turn began may be another's by then."""
    pause_before_commands(rig, monkeypatch, PAUSE_MS // 2)
    times: list[float] = []
    monkeypatch.setattr(rig.node, "tick", lambda: times.append(rig.node.monotonic_ms))
    rig.turn(SET)
    assert times == [pytest.approx(START_MS + PAUSE_MS // 2, abs=1)]


def test_after_a_long_pause_in_a_turn_mail_is_read_before_timers_run(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.link()
    pause_before_commands(rig, monkeypatch, PAUSE_MS + 1)
    hear(rig, monkeypatch, [], [("n2", 0, AskRead(0, b"n2.b", 1))], [])
    rig.turn(SET)
    assert rig.steps == ["hear", "advance", "hear", "advance", "hear", "advance", "receive", "tick"]


def adopt_at_ping(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the client for a peer at its next command, as a proof would."""
    execute = rig.front.dispatcher.execute

    def adopt(session: Session, commands: list[list[bytes]]) -> None:
        execute(session, commands)
        rig.reactor.adopt(session, "n2", "127.0.0.1:7002")

    monkeypatch.setattr(rig.front.dispatcher, "execute", adopt)


def test_a_peer_s_connection_becomes_its_link_once_it_has_its_answer(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    adopt_at_ping(rig, monkeypatch)
    found: list[tuple[str, str]] = []
    rig.reactor.on_peer = lambda peer, address: found.append((peer, address))
    rig.turn(packed("PING"))
    assert rig.client.recv(100) == b"+PONG\r\n"
    assert found == [("n2", "127.0.0.1:7002")]
    assert rig.reactor.links.callers() == ["n2"]
    assert rig.front.server.clients == {}


def test_a_peer_that_does_not_wait_for_its_answer_is_closed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    adopt_at_ping(rig, monkeypatch)
    rig.turn(packed("PING") + b"*2\r\n$4\r\nPEER")
    assert rig.client.recv(100) == b"+PONG\r\n"
    assert rig.client.recv(100) == b""
    assert rig.reactor.links.callers() == []


def test_clients_that_take_every_place_keep_no_node_out(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.node, "addresses", lambda: {"n2": "127.0.0.1:7002"})
    rig.front.server.settings = load({"maxclients": "1"}, {})
    listener = socket.create_server(("127.0.0.1", 0))
    rig.sockets.append(listener)
    rig.reactor.listen(listener)
    words_of_a_node = packed("PEER", "HELLO", "0")
    said = (b"", packed("PING"), words_of_a_node)
    callers = {words: socket.create_connection(listener.getsockname(), timeout=10) for words in said}
    rig.sockets += callers.values()
    rig.turn()
    for words, caller in callers.items():
        caller.sendall(words)
    for _ in range(3):
        rig.reactor.turn(rig.reactor._poller.poll(1))
    rig.reactor.sweep()
    rig.reactor.sweep()
    full = b"-ERR max number of clients reached\r\n"
    assert callers[b""].recv(1000) == full
    assert callers[packed("PING")].recv(1000) == full
    assert callers[words_of_a_node].recv(1000).startswith(b"-ERR this node speaks version")
    assert rig.front.server.stats.rejected_connections == 2


def test_a_client_that_ends_while_it_is_not_read_from_is_read_to_its_end(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resp_server.dispatch.WRITES_UNANSWERED_MAX", 5)
    rig.disk.under_way = True
    rig.client.sendall(packed("INCR", "a") * 3000)
    rig.client.shutdown(socket.SHUT_WR)
    for _ in range(5):
        rig.turn()
    assert rig.session.held
    rig.disk.under_way = False
    received = b""
    while data := take(rig):
        received += data
    assert received == b"".join(b":%d\r\n" % number for number in range(1, 3001))


def take(rig: Rig) -> bytes:
    """What the client is sent next, b"" when it is closed; turns as long as nothing comes."""
    rig.client.setblocking(False)
    for _ in range(1000):
        try:
            return rig.client.recv(1 << 20)
        except BlockingIOError:
            rig.reactor.turn(rig.reactor._poller.poll(0))
    raise AssertionError("nothing came, and it was not closed")
