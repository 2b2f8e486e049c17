"""Links between nodes: frames out and in, what is kept, and when a link is given up."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from cluster import wire
from cluster.raft.messages import Append, AskRead, Forward, Heartbeat, Message, Outcome
from cluster.ring.slots import SYSTEM
from resp_server.edge import link
from resp_server.edge.link import FRAME_HEAD, Links
from resp_server.edge.poller import READ, WRITE, Poller, new_poller
from resp_server.logs import LOGGER

SMALL = AskRead(0, b"n2.b", 7)
LARGE = Append(1, 0, 0, 0, [(1, b"x" * 300_000)])


class Hearsay:
    """A node that notes which links come and go."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    def connected(self, peer: str) -> None:
        self.noted.append(f"+{peer}")

    def disconnected(self, peer: str) -> None:
        self.noted.append(f"-{peer}")

    def sending(self, peer: str, *, large: bool) -> None:
        self.noted.append(f"{'large' if large else 'small'} {peer}")


class Ends:
    """Two nodes, n1 and n2, and the link from the one to the other."""

    def __init__(self) -> None:
        self.pollers: tuple[Poller, Poller] = (new_poller(), new_poller())
        self.node = Hearsay()
        self.near = Links(self.pollers[0], self.node)
        self.far = Links(self.pollers[1], Hearsay())
        self.sockets = socket.socketpair()
        for one in self.sockets:
            one.setblocking(False)
        self.link = self.near.up("n2", self.sockets[0])
        self.pollers[1].watch(self.sockets[1].fileno(), READ)
        self.far.adopt("n1", self.sockets[1])

    def heard(self) -> list[tuple[str, int, Message]]:
        """What came in on the far side, once all that was sent has gone out."""
        mail: list[tuple[str, int, Message]] = []
        while (found := self.far.hear(self.pollers[1].poll(0))) or self.link.unsent:
            mail += found
            self.near.hear(self.pollers[0].poll(0))
        return mail

    def close(self) -> None:
        self.near.close()
        self.far.close()
        for poller in self.pollers:
            poller.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


def test_messages_arrive_whole_and_in_order(ends: Ends) -> None:
    sent: list[Message] = [SMALL, LARGE, SMALL, *[AskRead(0, b"n2.b", number) for number in range(2000)], LARGE]
    ends.near.send([("n2", 0, message) for message in sent])
    assert [message for _, _, message in ends.heard()] == sent
    ends.near.send([("n2", 0, SMALL)])
    assert ends.heard() == [("n1", 0, SMALL)]


def test_a_frame_is_a_command_with_one_argument(ends: Ends) -> None:
    ends.near.send([("n2", 0, SMALL)])
    blob = wire.encode([(0, SMALL)])
    assert ends.sockets[1].recv(1000) == b"*2\r\n$4\r\nPEER\r\n$%d\r\n%b\r\n" % (len(blob), blob)


def test_a_turn_is_one_frame_for_all_shards(ends: Ends) -> None:
    sent = [(shard, AskRead(shard, b"n2.b", 1)) for shard in range(40)] + [(SYSTEM, LARGE)]
    ends.near.send([("n2", shard, message) for shard, message in sent])
    frame = FRAME_HEAD % len(wire.encode(sent)) + wire.encode(sent)
    assert ends.sockets[1].recv(1000, socket.MSG_PEEK) == frame[:1000]
    assert [(shard, message) for _, shard, message in ends.heard()] == sent


def test_what_goes_to_several_is_encoded_once(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[Message] = []
    pack = wire.pack

    def counted(message: Message) -> bytes:
        encoded.append(message)
        return pack(message)

    monkeypatch.setattr(wire, "pack", counted)
    ends.near.send([("n2", 0, LARGE), ("n2", 3, SMALL), ("n2", 9, LARGE), ("nobody", 0, AskRead(0, b"n2.b", 8))])
    assert encoded == [LARGE, SMALL]
    assert ends.heard() == [("n1", 0, LARGE), ("n1", 3, SMALL), ("n1", 9, LARGE)]


def test_what_the_socket_does_not_take_waits_for_it(ends: Ends) -> None:
    ends.near.send([("n2", 0, LARGE)] * 20)
    assert ends.link.unsent
    assert ends.link.interest == READ | WRITE
    assert len(ends.heard()) == 20
    assert ends.link.interest == READ


def test_a_peer_that_reads_nothing_is_given_up(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "UNSENT_BYTES_MAX", 1_000_000)
    ends.near.send([("n2", 0, LARGE)] * 20)
    assert ends.link.lost.is_set()
    assert ends.link.reason == "it does not read what it is sent"
    assert ends.node.noted == ["+n2", "-n2"]
    ends.near.send([("n2", 0, SMALL)])  # there is no link: lost


def test_messages_of_any_size_get_through(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so does what is sent while they are on their way; only what is not read otherwise counts."""
    monkeypatch.setattr(link, "UNSENT_BYTES_MAX", 100_000)
    ends.near.send([("n2", 0, huge(1)), ("n2", 1, huge(2))])
    for _ in range(100):
        ends.near.send([("n2", 0, SMALL)])
    arrived = [message for _, _, message in ends.heard()]
    assert [message for message in arrived if isinstance(message, Append)] == [huge(1), huge(2)]
    assert arrived.count(SMALL) == 100
    ends.near.send([("n2", 0, SMALL)] * 20_000)
    ends.near.send([("n2", 0, LARGE)] * 20)
    assert ends.link.lost.is_set(), "it read nothing since"


def huge(prev_index: int) -> Append:
    return Append(1, prev_index, 0, 0, [(1, b"x" * 8_000_000)])


def test_signs_of_life_overtake_a_large_message(ends: Ends) -> None:
    """A follower hears its leader, and the leader it, however long the message takes."""
    ends.near.send([("n2", 0, huge(1))])
    beats: list[Message] = [Heartbeat(1, 0, number, {}) for number in range(5)]
    mail: list[tuple[str, int, Message]] = []
    for beat in beats:
        assert ends.link.large, "it is still on its way"
        ends.near.send([("n2", 0, beat)])
        while not (found := ends.far.hear(ends.pollers[1].poll(0))):
            ends.near.hear(ends.pollers[0].poll(0))
        mail += found
    assert [message for _, _, message in mail] == beats
    assert ends.heard() == [("n1", 0, huge(1))]


@pytest.mark.parametrize(
    "message",
    [
        Append(3, 8, 2, 7, [(3, bytes(3_000_000))]),
        Append(3, 8, 2, 7, [(2, b"small"), (3, bytes(2_000_000))]),
        Append(3, 8, 2, 7, [(3, bytes(2_000_000)), (3, b"small")]),
        Append(3, 8, 2, 7, [(3, bytes(wire.LARGE_BYTES + 1))]),
        Append(3, 8, 2, 7, [(3, bytes(wire.LARGE_BYTES))]),
        Forward(3, b"n1.b", 4, 5, bytes(3_000_000), wanted=False),
        Forward(3, b"n1.b", 4, 5, bytes(2 * wire.PART_BYTES * 3), wanted=True),
        Forward(3, b"n1.b", 4, 5, bytes(wire.LARGE_BYTES)),
        Outcome(3, b"n1.b", 5, bytes(3_000_000), never=False),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_large_message_comes_as_it_is(ends: Ends, message: Message) -> None:
    ends.near.send([("n2", 9, message)])
    assert ends.link.large
    assert ends.heard() == [("n1", 9, message)]
    pieces = wire.pieces_of(message)
    assert pieces is None or b"".join(pieces) == wire.pack(message)


def test_what_is_of_no_use_before_a_large_message_stays_behind_it(ends: Ends) -> None:
    """Appends and batches of its shard; those of others need not wait for it."""
    next_one, of_another = Append(1, 2, 1, 0, [(1, b"y")]), Append(1, 7, 1, 0, [(1, b"z")])
    forward = Forward(1, b"n1.b", 0, 1, b"body")
    ends.near.send([("n2", 0, SMALL), ("n2", 0, huge(1)), ("n2", 0, next_one), ("n2", 3, of_another)])
    ends.near.send([("n2", 0, forward), ("n2", 0, SMALL)])
    assert ends.heard() == [
        ("n1", 0, SMALL),
        ("n1", 3, of_another),
        ("n1", 0, SMALL),
        ("n1", 0, huge(1)),
        ("n1", 0, next_one),
        ("n1", 0, forward),
    ]


def test_a_large_message_that_is_still_on_its_way_out_is_not_sent_twice(ends: Ends) -> None:
    outcome = Outcome(1, b"n2.b", 3, bytes(2_000_000), never=False)
    ends.near.send([("n2", 0, huge(1)), ("n2", 0, outcome), ("n2", 3, outcome)])
    ends.near.send([("n2", 0, huge(1)), ("n2", 0, outcome), ("n2", 0, huge(2))])
    assert ends.heard() == [("n1", 0, huge(1)), ("n1", 0, outcome), ("n1", 3, outcome), ("n1", 0, huge(2))]


def test_the_node_knows_while_something_large_is_on_its_way_out(ends: Ends) -> None:
    ends.near.send([("n2", 0, LARGE)])
    ends.heard()
    assert ends.node.noted == ["+n2"]
    ends.near.send([("n2", 0, huge(1))])
    assert ends.node.noted == ["+n2", "large n2"]
    ends.near.send([("n2", 0, huge(2))])
    ends.heard()
    assert ends.node.noted == ["+n2", "large n2", "small n2"]


def test_a_link_that_is_cut_in_the_midst_of_a_large_message_brings_none_of_it(ends: Ends) -> None:
    ends.near.send([("n2", 0, huge(1))])
    assert ends.far.hear(ends.pollers[1].poll(0)) == []
    ends.near.cut("n2", "cut")
    assert ends.node.noted == ["+n2", "large n2", "-n2"]
    while ends.far.callers():
        assert ends.far.hear(ends.pollers[1].poll(1)) == []
    link_again(ends)
    ends.near.send([("n2", 0, huge(2))])
    assert ends.heard() == [("n1", 0, huge(2))], "nothing is left of the one before"


def test_a_peer_that_closes_is_noticed(ends: Ends) -> None:
    ends.far.cut_from("n1")
    assert ends.near.hear(ends.pollers[0].poll(1)) == []
    assert ends.link.lost.is_set()
    assert not ends.near.some


def test_nothing_is_answered_on_a_link(ends: Ends) -> None:
    ends.sockets[1].send(b"+OK\r\n")
    ends.near.hear(ends.pollers[0].poll(1))
    assert ends.link.reason == "it answers where nothing is to be answered"


def test_another_connection_takes_the_place_of_the_first(ends: Ends) -> None:
    first = ends.link
    link_again(ends)
    assert first.lost.is_set()
    assert not ends.link.lost.is_set()
    assert ends.far.callers() == ["n1"]
    ends.near.send([("n2", 0, SMALL)])
    assert ends.heard() == [("n1", 0, SMALL)]


def link_again(ends: Ends) -> None:
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    ends.link = ends.near.up("n2", near)
    ends.pollers[1].watch(far.fileno(), READ)
    ends.far.adopt("n1", far)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"*1\r\n$4\r\nPING\r\n",
        b"*2\r\n$4\r\nPEER\r\n$1\r\n\xc1\r\n",
        b"*2\r\n$4\r\nPEER\r\n:1\r\n",
        b"*3\r\n$4\r\nPEER\r\n$1\r\na\r\n$1\r\nb\r\n",
        b"PEER\r\n",
        b"*x\r\n",
        b"-ERR no\r\n",
    ],
)
def test_what_is_no_message_ends_the_link(
    ends: Ends, nonsense: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOGGER, "propagate", True)
    monkeypatch.setattr(LOGGER, "handlers", [])  # whatever another test left there
    caplog.set_level("WARNING", logger=LOGGER.name)  # whatever another test set
    ends.near.send([("n2", 0, SMALL)])
    ends.sockets[0].send(nonsense)
    ends.far.hear(ends.pollers[1].poll(1))
    assert ends.far.callers() == []
    assert [record.msg for record in caplog.records if record.levelname == "WARNING"] == [
        "closed a peer that sent no message"
    ]
