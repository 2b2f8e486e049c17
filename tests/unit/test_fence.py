"""FENCE: in the machine, and what is checked before it enters the log."""

from __future__ import annotations

import pytest

from cluster.machine.machine import Machine
from cluster.machine.reply import OK, CommandError, Reply
from resp_server.commands import keys, locks, strings
from resp_server.commands.locks import fenced
from resp_server.commands.table import Table
from resp_server.settings import Settings
from tests.front import Front, recovered

TABLE = Table((strings.COMMANDS, keys.COMMANDS, locks.COMMANDS))


@pytest.fixture
def machine() -> Machine:
    machine = Machine(TABLE.machine_commands())
    machine.begin(1_000_000)
    return machine


def run(machine: Machine, line: str, session: bytes = b"s") -> Reply:
    args = line.encode().split()
    machine.origin = session
    return machine.run(machine.handler(args[0]), args)


def error(reply: Reply) -> str:
    assert isinstance(reply, CommandError), reply
    return reply.line.decode()


def refusal(line: str) -> str:
    with pytest.raises(CommandError) as caught:
        fenced(Front().server, line.encode().split())
    return error(caught.value)


def test_the_command_runs_while_the_lock_is_held_with_the_token(machine: Machine) -> None:
    run(machine, "LOCK.ACQUIRE job a PX 500")
    assert run(machine, "FENCE job 1 SET result done") == OK
    assert run(machine, "FENCE job 1 incr counter") == 1
    assert run(machine, "GET result") == b"done"


@pytest.mark.parametrize("ending", ["LOCK.RELEASE job a", "LOCK.BREAK job", "DEL job", "SET job text", "expiry"])
def test_a_holder_that_wakes_up_late_changes_nothing(machine: Machine, ending: str) -> None:
    run(machine, "LOCK.ACQUIRE job a PX 500")
    run(machine, "LOCK.ACQUIRE job b BLOCK 0", session=b"other")
    if ending == "expiry":
        machine.begin(machine.now_ms + 500)
    else:
        run(machine, ending)
    assert error(run(machine, "FENCE job 1 SET result late")).startswith("FENCED ")
    assert run(machine, "EXISTS result") == 0


def test_every_sharer_has_its_own_token_and_an_upgrade_a_new_one(machine: Machine) -> None:
    run(machine, "LOCK.ACQUIRE job a SHARED")
    run(machine, "LOCK.ACQUIRE job b SHARED")
    assert [run(machine, f"FENCE job {token} INCR n") for token in (1, 2)] == [1, 2]
    run(machine, "LOCK.RELEASE job b")
    assert error(run(machine, "FENCE job 2 INCR n")).startswith("FENCED ")
    assert run(machine, "LOCK.ACQUIRE job a") == 3
    assert error(run(machine, "FENCE job 1 INCR n")).startswith("FENCED ")
    assert run(machine, "FENCE job 3 INCR n") == 3


def test_an_error_inside_is_the_answer(machine: Machine) -> None:
    run(machine, "LOCK.ACQUIRE job a")
    run(machine, "SET text abc")
    assert error(run(machine, "FENCE job 1 INCR text")) == "ERR value is not an integer or out of range"
    assert error(run(machine, "FENCE job x INCR text")) == "ERR value is not an integer or out of range"
    assert error(run(machine, "FENCE job 1 NOSUCH text")) == "ERR unknown command 'NOSUCH'"
    assert run(machine, "FENCE job 1 SET text 1") == OK


def test_nothing_waits_inside(machine: Machine) -> None:
    run(machine, "LOCK.ACQUIRE job a")
    run(machine, "LOCK.ACQUIRE other a")
    assert run(machine, "FENCE job 1 LOCK.ACQUIRE other b BLOCK 0") is None
    assert error(run(machine, "FENCE job 1 LOCK.ACQUIRE other b BLOCK -1")) == "ERR timeout is negative"
    assert machine.may_wait
    assert len(machine.waiters) == 0


def test_a_fenced_release_serves_who_waits(machine: Machine) -> None:
    run(machine, "LOCK.ACQUIRE job a")
    run(machine, "LOCK.ACQUIRE job b BLOCK 0", session=b"other")
    assert run(machine, "FENCE job 1 LOCK.RELEASE job a") == 1
    assert machine.woken == [(b"other", 1, 2)]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("FENCE job 1 NOSUCH x", "ERR unknown command 'NOSUCH', with args beginning with: 'x' "),
        ("FENCE job 1 SET x", "ERR wrong number of arguments for 'set' command"),
        ("FENCE job 1 GET x", "ERR FENCE takes a command that writes, 'get' does not"),
        ("FENCE job 1 fence job 1 SET x y", "ERR FENCE calls can not be nested"),
    ],
)
def test_what_cannot_be_fenced_never_enters_the_log(line: str, text: str) -> None:
    assert refusal(line) == text


def test_a_write_that_fits_enters_the_log_as_it_is() -> None:
    call = b"FENCE job 1 set x y".split()
    assert fenced(Front().server, call) == call


def test_a_default_life_of_this_node_is_written_into_the_log() -> None:
    front = Front(settings=Settings().changed("lock-default-ttl", "500"))
    client = front.connect()
    client.call(b"LOCK.ACQUIRE", b"job", b"a")
    client.call(b"LOCK.ACQUIRE", b"long", b"a", b"px", b"90000")
    client.call(b"LOCK.ACQUIRE", b"mine", b"a", b"SESSION")
    client.call(b"FENCE", b"job", b"1", b"LOCK.ACQUIRE", b"inner", b"a", b"SHARED")
    for key, ttl_ms in ((b"job", 500), (b"long", 90_000), (b"mine", -1), (b"inner", 500)):
        (info,) = client.call(b"LOCK.INFO", key)
        assert dict(zip(info[::2], info[1::2], strict=True))[b"holders"][0][9] == ttl_ms, key
    assert recovered(front.storage).keyspace.values.keys() == {b"job", b"long", b"mine", b"inner"}
