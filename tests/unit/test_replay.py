"""The log is the state: whatever was done, replaying it or loading a checkpoint gives the very same machine."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.machine.keyspace import Checkpoint
from cluster.machine.machine import ALARMS_PER_ENTRY, Machine
from cluster.machine.reply import CommandError
from resp_server.commands.table import Table
from tests.calls import Words, commands, right
from tests.front import SHARD, Front, recovered, state

CLIENTS = 4
LATER_MS = (1, 999, 5_000, 60_000, 86_400_000)

CALLS = st.one_of(
    [right(command) for command in commands(Table()) if command.run is not None or "MULTI" in command.name]
)
GRANTS = st.sampled_from(
    [
        [b"LOCK.ACQUIRE", b"a", b"ann"],
        [b"LOCK.ACQUIRE", b"b", b"ann", b"PX", b"5"],
        [b"LOCK.ACQUIRE", b"a", b"bob", b"BLOCK", b"0"],
        [b"LOCK.ACQUIRE", b"b", b"bob", b"BLOCK", b"700", b"SESSION"],
        [b"LOCK.INFO", b"a"],
        [b"Q.PUSH", b"c", b"job"],
        [b"Q.POP", b"c", b"BLOCK", b"0"],
        [b"EXEC"],
        [b"INCR", b"a"],
        [b"APPEND", b"b", b"x"],
        [b"Q.ACK", b"c", b"1-1"],
    ]
)


@dataclass(frozen=True)
class Call:
    """One client sends one command; it is not answered before the turn ends."""

    client: int
    words: Words


@dataclass(frozen=True)
class EndTurn:
    """The turn's writes are committed, and time passes."""

    passes_ms: int


@dataclass(frozen=True)
class Leave:
    """One client disconnects and connects anew."""

    client: int


@dataclass(frozen=True)
class Save:
    """A checkpoint goes on by so many rows; begun when none is under way, ended when it has all."""

    rows: int


Step = Call | EndTurn | Leave | Save
clients = st.integers(0, CLIENTS - 1)
STEPS = st.lists(
    st.one_of(
        st.builds(Call, clients, CALLS),
        st.builds(Call, clients, GRANTS),
        st.builds(EndTurn, st.sampled_from([0, 0, 1, 5, 700, 6000])),
        st.builds(Leave, clients),
        st.builds(Save, st.integers(1, 2)),
    ),
    min_size=20,
    max_size=60,
)


class Saver:
    """Checkpoints in slices, as the worker thread does, between the turns of a front."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._under_way: tuple[Checkpoint, int, int, bytes] | None = None

    def go_on(self, rows: int) -> None:
        node, storage = self._front.node, self._front.storage
        if self._under_way is None:
            self._under_way = node.begin_checkpoint(SHARD)
            changed = self._under_way[0]
            storage.begin_checkpoint(SHARD, cleared=changed.cleared, erased=changed.erased)
            return
        changed, index, term, ledger = self._under_way
        if written := changed.slice(rows):
            storage.write_rows(SHARD, written)
            return
        storage.finish_checkpoint(SHARD, index, term, ledger)
        node.end_checkpoint(SHARD, index, durable=True)
        while storage.cut_log(SHARD, index, 2):
            pass
        self._under_way = None


def run(steps: list[Step]) -> Front:
    """Takes the steps on a new front."""
    front = Front()
    saver = Saver(front)
    connected = [front.connect() for _ in range(CLIENTS)]
    for step in steps:
        match step:
            case Call(number, words):
                connected[number].ask(words)
            case EndTurn(passes_ms):
                front.finish()
                front.advance(passes_ms)
            case Leave(number):
                front.disconnect(connected[number])
                connected[number] = front.connect()
            case Save(rows):
                front.finish()
                saver.go_on(rows)
        for client in connected:
            client.replies()
    front.finish()
    return front


def check(front: Front) -> None:
    """The node that the log and the checkpoint bring back is the one there was, now and from now on."""
    there, back = front.machine, recovered(front.storage)
    assert state(back) == state(there)
    for machine in (there, back):
        machine.woken.clear()
    there.begin(there.log_ms)
    for passes_ms in LATER_MS:
        assert later(back, passes_ms) == later(there, passes_ms)


def later(machine: Machine, passes_ms: int) -> object:
    """What a machine comes to when time passes, until all that waits in it is over."""
    while True:
        machine.apply(machine.log_ms + passes_ms, [])
        if not machine.behind:
            break
        passes_ms = 0
    return state(machine), machine.woken


@settings(max_examples=300)
@given(STEPS)
def test_replay_gives_the_same_state(steps: list[Step]) -> None:
    check(run(steps))


@settings(max_examples=100)
@given(STEPS, st.sampled_from([b"FLUSHALL", b"DEL"]))
def test_what_is_freed_at_once_is_granted_in_the_same_order(steps: list[Step], how: bytes) -> None:
    front = run(steps)
    machines = (front.machine, recovered(front.storage))
    args = [b"FLUSHALL"] if how == b"FLUSHALL" else [b"DEL", b"a", b"b", b"c"]
    outcomes = []
    for machine in machines:
        machine.woken.clear()
        machine.apply(machine.log_ms, [(machine.handler(args[0]), args, b"")])
        outcomes.append((state(machine), machine.woken))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    "change",
    [
        [b"INCR", b"a"],
        [b"APPEND", b"a", b"1"],
        [b"RENAME", b"a", b"b"],
        [b"COPY", b"a", b"b"],
        [b"LOCK.ACQUIRE", b"lock", b"ann"],
        [b"Q.POP", b"queue"],
        [b"Q.PUSH", b"queue", b"job"],
        [b"RENAME", b"queue", b"renamed"],
        [b"FLUSHALL"],
    ],
    ids=lambda words: b" ".join(words).decode(),
)
@pytest.mark.parametrize("when", [0, 1, 2])
def test_a_change_while_a_checkpoint_is_written(change: Words, when: int) -> None:
    """It is in the log behind the checkpoint, so it must not be in the checkpoint as well."""
    front = Front()
    client, saver = front.connect(), Saver(front)
    for words in ([b"SET", b"a", b"1"], [b"LOCK.ACQUIRE", b"lock", b"ann"], [b"Q.MPUSH", b"queue", b"1", b"2"]):
        client.call(*words)
    saver.go_on(1)
    for number in range(8):
        if number == when:
            client.call(*change)
        saver.go_on(1)
    check(front)


def test_a_read_of_what_is_overdue_leaves_no_trace() -> None:
    """More falls due at once than one entry rings, and somebody reads a lock that is among the rest."""
    front = Front()
    waits, other = front.connect(), front.connect()
    front.connect().call(b"LOCK.ACQUIRE", b"lock", b"ann", b"PX", b"100")
    waits.call(b"LOCK.ACQUIRE", b"lock", b"bob", b"BLOCK", b"0")
    for number in range(2 * ALARMS_PER_ENTRY):
        other.ask([b"SET", b"%d" % number, b"", b"PX", b"50"])
    front.finish()
    front.now_ms += 200
    front.node.advance(front.now_ms, front.now_ms)
    front.finish()
    assert front.machine.behind
    other.ask([b"LOCK.INFO", b"lock"])
    other.ask([b"LOCK.ACQUIRE", b"other lock", b"ann"])
    front.finish()
    front.advance(0)
    check(front)


def test_a_read_while_the_disk_is_full_leaves_no_trace() -> None:
    """Two locks with waiters end unseen; reading the later one must not make it end before the other."""
    front = Front()
    for key, life_ms in ((b"first", b"100"), (b"second", b"200")):
        front.connect().call(b"LOCK.ACQUIRE", key, b"ann", b"PX", life_ms)
        front.connect().call(b"LOCK.ACQUIRE", key, b"bob", b"BLOCK", b"0")
    front.server.refuse_writes(CommandError("full", "MISCONF"))
    front.advance(1000)
    front.connect().call(b"LOCK.INFO", b"second")
    front.server.refuse_writes(None)
    front.advance(0)
    check(front)


def test_a_checkpoint_keeps_the_order_in_which_flushing_wakes() -> None:
    front = Front()
    for key in (b"later", b"earlier"):
        front.connect().call(b"LOCK.ACQUIRE", key, b"ann")
        front.connect().call(b"LOCK.ACQUIRE", key, b"bob", b"BLOCK", b"0")
    saver = Saver(front)
    for _ in range(3):
        saver.go_on(10)
    front.connect().call(b"FLUSHALL")
    check(front)


def test_alarms_nobody_means_any_more_count_for_nothing() -> None:
    """A machine that lived on holds alarms that were cancelled late; one from a checkpoint does not."""
    front = Front()
    client = front.connect()
    for number in range(ALARMS_PER_ENTRY):
        client.ask([b"SET", b"gone:%d" % number, b"", b"PX", b"1000"])
    front.finish()
    front.advance(990)
    for number in range(ALARMS_PER_ENTRY):
        client.ask([b"PERSIST", b"gone:%d" % number])
    client.ask([b"LOCK.ACQUIRE", b"lock", b"ann", b"PX", b"10"])
    front.finish()
    front.connect().call(b"LOCK.ACQUIRE", b"lock", b"bob", b"BLOCK", b"0")
    saver = Saver(front)
    for _ in range(3):
        saver.go_on(5000)
    front.now_ms += 100
    front.node.advance(front.now_ms, front.now_ms)
    client.call(b"LOCK.ACQUIRE", b"other", b"ann")
    front.advance(0)
    check(front)
