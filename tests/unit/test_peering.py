"""The handshake between nodes: each side against the other and against who is not what it says; its commands."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.raft.membership import Config, Member, static
from cluster.storage.contract import Identity
from cluster.wire import VERSION
from resp_server.logs import LOGGER
from resp_server.peering import (
    SAID_MAX,
    SAY_AGAIN_MS,
    Claim,
    Dialer,
    Hello,
    Join,
    Listener,
    Refused,
    Sayings,
    Welcome,
    judge_caller,
    judge_disk,
    welcome,
    welcomed,
)
from resp_server.session import Session
from tests.unit.wire_front import WireFront, wire

NONCE = "00112233445566778899aabbccddeeff"
OTHER_NONCE = "ffeeddccbbaa99887766554433221100"
HELLO = Hello("c1", "n1", "127.0.0.1:7001", "n2", "disk1", "1x3", NONCE)
JOIN = Join("", "127.0.0.1:7004", "disk4", "rack-4", NONCE)
MEMBERS = static({"n1": "127.0.0.1:7001", "n2": "127.0.0.1:7002", "n3": "127.0.0.1:7003"})
MOVED = MEMBERS.with_known(Member("n1", "127.0.0.1:7001", "old"))


@dataclass
class Known:
    """What a node knows, as far as the handshake asks."""

    identity: Identity = field(default_factory=lambda: Identity("c1", "n2", "disk2"))
    members: Config = MEMBERS
    has_leader: bool = True
    leader: str | None = "n3"
    disks: dict[str, str] = field(default_factory=dict)

    def disk_of(self, peer: str) -> str:
        return self.disks.get(peer, "")


def shake(claim: Claim, dialers: str, listeners: str, disk: str = "disk2") -> str:
    """A whole handshake between two nodes with these secrets; the listener's disk as the dialer learns it."""
    dialer = Dialer(claim, dialers)
    listener = Listener(dialer.hello(), OTHER_NONCE)
    assert listener.claim == claim
    listener.judge(dialer.prove(listener.nonce.encode())[2], listeners)
    return dialer.check(listener.answer(listeners, disk))


@pytest.mark.parametrize("claim", [HELLO, JOIN])
@pytest.mark.parametrize("secret", ["", "s3cret", "ungewöhnlich"])
def test_two_that_know_the_secret_agree(claim: Claim, secret: str) -> None:
    assert shake(claim, secret, secret) == "disk2"


@pytest.mark.parametrize(("dialers", "listeners"), [("right", "wrong"), ("", "right"), ("right", "")])
def test_the_listener_refuses_who_does_not_know_the_secret(dialers: str, listeners: str) -> None:
    with pytest.raises(Refused, match="the caller did not prove the cluster's secret: set the same --cluster-secret"):
        shake(HELLO, dialers, listeners)


@pytest.mark.parametrize("answer", [[b"", b"disk2"], [b"0" * 64, b"disk2"]])
def test_the_dialer_refuses_who_does_not_know_the_secret(answer: list[bytes]) -> None:
    dialer = Dialer(HELLO, "right")
    dialer.prove(OTHER_NONCE.encode())
    with pytest.raises(Refused, match="the node that was called did not prove"):
        dialer.check(answer)


def test_a_proof_is_good_for_one_handshake_and_one_direction() -> None:
    dialer = Dialer(HELLO, "right")
    listener = Listener(dialer.hello(), OTHER_NONCE)
    proof = dialer.prove(listener.nonce.encode())[2]
    with pytest.raises(Refused):
        dialer.check([proof, b"disk2"])  # sent back to who made it
    for other in (Listener(dialer.hello(), NONCE), Listener(Dialer(HELLO._replace(disk="x"), "").hello(), OTHER_NONCE)):
        with pytest.raises(Refused):
            other.judge(proof, "right")
    listener.judge(proof, "right")


def test_the_listener_s_disk_is_part_of_what_it_proves() -> None:
    dialer = Dialer(HELLO, "right")
    listener = Listener(dialer.hello(), OTHER_NONCE)
    dialer.prove(listener.nonce.encode())
    with pytest.raises(Refused):
        dialer.check([listener.answer("right", "disk2")[0], b"disk3"])


def test_what_is_said_on_the_wire() -> None:
    assert Dialer(HELLO, "").hello() == [
        b"PEER", b"HELLO", b"7", b"c1", b"n1", b"127.0.0.1:7001", b"n2", b"disk1", b"1x3", NONCE.encode(),
    ]  # fmt: skip
    assert Dialer(JOIN, "").hello() == [
        b"PEER", b"JOIN", b"7", b"", b"127.0.0.1:7004", b"disk4", b"rack-4", NONCE.encode(),
    ]  # fmt: skip
    assert Dialer(HELLO, "").prove(OTHER_NONCE.encode()) == [b"PEER", b"PROVE", b""]
    said = f"dialer|Hello|7|c1|n1|127.0.0.1:7001|n2|disk1|1x3|{NONCE}|{OTHER_NONCE}"
    proof = hmac.new(b"s3cret", said.encode(), "sha256").hexdigest()
    assert Dialer(HELLO, "s3cret").prove(OTHER_NONCE.encode()) == [b"PEER", b"PROVE", proof.encode()]


def spoilt(change: Callable[[list[bytes]], None]) -> list[bytes]:
    """The first command, changed."""
    args = Dialer(HELLO, "").hello()
    change(args)
    return args


@pytest.mark.parametrize(
    ("args", "kind"),
    [
        (spoilt(lambda args: args.__setitem__(2, b"%d" % (VERSION + 1))), "version"),
        ([b"PEER", b"HELLO", b"99", b"fields", b"of", b"a", b"later", b"version"], "version"),
        (spoilt(lambda args: args.append(b"more")), "malformed"),
        (spoilt(lambda args: args.__delitem__(-1)), "malformed"),
        (spoilt(lambda args: args.__setitem__(-1, b"short")), "malformed"),
        (spoilt(lambda args: args.__setitem__(4, b"n1|n2")), "malformed"),
        (spoilt(lambda args: args.__setitem__(4, b"two words")), "malformed"),
        (spoilt(lambda args: args.__setitem__(5, b"nowhere")), "address"),
    ],
)
def test_what_cannot_be_read_is_refused(args: list[bytes], kind: str) -> None:
    with pytest.raises(Refused) as refusal:
        Listener(args, OTHER_NONCE)
    assert refusal.value.kind == kind


@given(st.lists(st.binary(max_size=40), max_size=9), st.sampled_from([b"HELLO", b"JOIN", b"hello"]))
def test_nothing_but_a_refusal_comes_of_any_bytes(fields: list[bytes], verb: bytes) -> None:
    with pytest.raises(Refused):
        Listener([b"PEER", verb, b"%d" % VERSION, *fields], OTHER_NONCE)


@pytest.mark.parametrize("reply", [None, 1, b"PONG", b"x" * 32, [b"a"], NONCE])
def test_a_dialer_is_not_taken_in_by_other_servers(reply: object) -> None:
    with pytest.raises(Refused, match="what answers there is no node of this program"):
        Dialer(HELLO, "").prove(reply)
    with pytest.raises(Refused, match="what answers there is no node of this program"):
        Dialer(HELLO, "").check(reply)


@pytest.mark.parametrize(
    ("hello", "knows", "reason"),
    [
        (HELLO._replace(cluster="c2"), Known(), "n2 belongs to cluster c1, n1 to cluster c2: start both with the"),
        (
            HELLO._replace(cluster="c2", shape="16x5"),
            Known(),
            "n2 belongs to a cluster of 1x3 (shards x replicas), n1 to one of 16x5: start both with the same --cluster",
        ),
        (HELLO._replace(receiver="n3"), Known(), "this is n2, not n3: correct the address of one of them"),
        (HELLO._replace(sender="n2"), Known(), "two nodes call themselves n2: give each its own --node-id"),
        (HELLO._replace(sender="n9"), Known(), "n9 is no member of the cluster, or was removed: let it join with"),
        (HELLO, Known(members=MOVED, disks={"n1": "old"}), "n1 came back with another data folder: remove n1"),
        (HELLO, Known(has_leader=False, disks={"n1": "old"}), "n1 came back with another data folder"),
    ],
)
def test_who_is_refused_and_what_to_do(hello: Hello, knows: Known, reason: str) -> None:
    with pytest.raises(Refused) as refusal:
        judge_caller(hello, knows)
    assert refusal.value.reason.startswith(reason)


@pytest.mark.parametrize(
    ("hello", "knows"),
    [
        (HELLO, Known()),
        (HELLO, Known(disks={"n1": "disk1"})),
        (HELLO._replace(sender="n9"), Known(has_leader=False)),  # it may lead those that replaced the ones known here
        (HELLO._replace(sender="n9"), Known(leader="n9")),
        (HELLO, Known(members=MOVED, has_leader=False, disks={"n1": "old"})),  # it may have joined again meanwhile
        (HELLO, Known(members=MOVED, leader="n1", disks={"n1": "old"})),
    ],
)
def test_who_is_taken(hello: Hello, knows: Known) -> None:
    judge_caller(hello, knows)


def test_a_listener_with_another_folder_is_refused_as_a_caller_is() -> None:
    judge_disk("n1", "disk1", Known())
    with pytest.raises(Refused, match="n1 came back with another data folder"):
        judge_disk("n1", "disk1", Known(disks={"n1": "old"}))


def test_a_joiner_is_told_of_everybody() -> None:
    config = MEMBERS.with_known(Member("n2", "127.0.0.1:7002", "disk2")).with_learner(
        Member("n4", "[::1]:7", "d4", "rack-4")
    )
    identity = Identity("c1", "n2", "disk2", shards=16, replicas=5)
    assert welcomed(welcome(Known(identity, config))) == Welcome("c1", 16, 5, config)


@pytest.mark.parametrize(
    "reply",
    [
        None,
        [],
        [b"c", b"16", b"3", b"n1"],
        [b"c", b"16", b"3", b"n1", b"a:1", b"d", b"", b"king"],
        [b"c", b"16", b"3", 1, 2, 3, 4, 5],
        [b"c", b"many", b"3"],
        [b"c", b"0", b"3"],
        [b"c", b"16", b"10"],
        [b"c", b"16385", b"3"],
    ],
)
def test_a_joiner_is_not_told_nonsense(reply: object) -> None:
    with pytest.raises(Refused):
        welcomed(reply)


def test_the_same_is_not_said_again_within_a_minute() -> None:
    sayings = Sayings()
    assert sayings.new("n1", "secret", 0)
    assert not sayings.new("n1", "secret", SAY_AGAIN_MS - 1)
    assert sayings.new("n1", "cluster", 1)
    assert sayings.new("n2", "secret", 1)
    assert sayings.new("n1", "secret", SAY_AGAIN_MS)


def test_what_is_said_is_bounded_whatever_it_is_about() -> None:
    sayings = Sayings()
    assert sum(sayings.new(f"n{number}", "", 0) for number in range(10 * SAID_MAX)) == SAID_MAX
    assert sayings.new("another", "", SAY_AGAIN_MS)


# PEER, on a node n1 that is alone in cluster c with data folder d


def introduce(front: WireFront, session: Session, claim: Claim, secret: str = "") -> bytes:
    """Both steps of the caller; what it receives in the end."""
    dialer = Dialer(claim, secret)
    nonce = front.send(session, dialer.hello()).split(b"\r\n")[1]
    return front.send(session, dialer.prove(nonce))


def test_a_joiner_becomes_a_member_and_then_may_call() -> None:
    front = WireFront()
    session = front.connect()
    assert introduce(front, session, JOIN) == wire([b"", b"d"])
    assert front.send(session, "PEER ENTER", "PING") == b"", "not before the cluster has agreed"
    joined = front.send(session)
    while not joined:
        front.pass_time()
        joined = front.send(session)
    assert joined == wire(b"n2") + b"+PONG\r\n"
    for _ in range(3):  # the cluster notes which folder n1 has
        front.pass_time()
        front.send(session)
    told = [b"c", b"1", b"3", b"n1", b"127.0.0.1:1", b"d", b"", b"voter"]
    told += [b"n2", b"127.0.0.1:7004", b"disk4", b"rack-4", b"learner"]
    assert front.send(session, "PEER MEMBERS") == wire(told)
    caller = front.connect()
    assert introduce(front, caller, Hello("c", "n2", "127.0.0.1:7004", "n1", "disk4", "1x3", NONCE)) == wire(
        [b"", b"d"]
    )
    assert front.edge.adopted == [(caller, "n2", "127.0.0.1:7004")]


@pytest.mark.parametrize("call", ["PEER ENTER", "PEER MEMBERS", "PEER PROVE x"])
def test_nobody_gets_in_by_the_back_door(call: str) -> None:
    front = WireFront(requirepass="pass")
    session = front.connect()
    front.send(session, Dialer(JOIN, "").hello())
    refusal = front.send(session, call)
    assert refusal.startswith((b"-ERR PEER JOIN and PEER PROVE come first", b"-ERR the caller did not prove"))
    assert front.send(session, "PEER PROVE x").startswith(b"-ERR "), "one try for each nonce"
    assert front.edge.adopted == []


def test_a_password_takes_the_place_of_a_secret() -> None:
    front = WireFront(requirepass="pass")
    session = front.connect()
    assert introduce(front, session, JOIN, "wrong").startswith(b"-ERR the caller did not prove")
    assert introduce(front, session, JOIN, "pass").startswith(b"*2\r\n$64\r\n")
    assert front.send(session, "PING").startswith(b"-NOAUTH"), "a node is no client"


def test_a_caller_that_is_refused_is_no_peer_and_no_burden(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOGGER, "propagate", True)
    monkeypatch.setattr(LOGGER, "handlers", [])  # whatever another test left there
    caplog.set_level("WARNING", logger=LOGGER.name)  # whatever another test set
    front = WireFront()
    for _ in range(100):
        session = front.connect()
        refusal = introduce(front, session, Hello("c2", "n2", "127.0.0.1:7002", "n1", "disk2", "1x3", NONCE))
        assert refusal.startswith(b"-ERR n1 belongs to cluster c, n2 to cluster c2:")
    assert front.edge.adopted == []
    assert front.server.handshakes == {}
    assert [record.msg for record in caplog.records] == ["refused a peer"]
    front.send(session, Dialer(JOIN, "").hello())
    front.server.disconnect(session)
    assert front.server.handshakes == {}
