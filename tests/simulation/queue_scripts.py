"""Situations of queues, set up by hand: as scripts.py."""

from __future__ import annotations

from binascii import crc_hqx

from tests.simulation.deadlocks import ON_FOUR
from tests.simulation.healing import keys_of_all
from tests.simulation.scripts import Play, Script
from tests.simulation.simulation import ONE, Shape
from tests.simulation.world import Violation


def refused_in_another_shard(script: Script) -> None:
    """A message dies, and where it is to go in another shard there is something else than a queue."""
    a = script.a
    key, other = (name.decode() for name in keys_of_all(script.simulation, b"j")[:2])
    script.call(a, "SET", other, "v0")
    script.call(a, "Q.CREATE", key, "DLQ", other)
    script.call(a, "Q.PUSH", key, "v1")
    taken = script.call(a, "Q.POP", key)
    receipt = taken.reply[0][0].decode()
    script.call(a, "Q.NACK", key, receipt, "DEAD")
    script.run(1500)
    dead = script.call(a, "Q.PEEK", key, "DEAD")
    if [message[1] for message in dead.reply] != [b"v1"]:
        raise Violation("letters arrive", f"{dead} got {dead.reply}")


def two_parts_at_once(script: Script) -> None:
    """Somebody waits in all parts of a queue, and two of them are given a message in the same moment."""
    a = script.a
    key = keys_of_all(script.simulation, b"j")[0].decode()
    script.call(a, "Q.CREATE", key, "PARTITIONS", "4")
    script.run(300)
    names = [f"id{number}" for number in range(20)]
    apart = [next(name for name in names if crc_hqx(name.encode(), 0) % 4 == part) for part in range(4)]
    waiting = script.wait(a, "Q.POP", key, "BLOCK", "0")
    script.run(200)
    for node, name in zip((a, script.b, script.c, script.others[0]), apart, strict=True):
        script.ask(node, "Q.PUSH", key, f"v-{name}", "ID", name)
    script.until(lambda: waiting.done)
    script.run(500)
    left = script.call(a, "Q.POP", key, "COUNT", "9")
    if len(left.reply) + len(waiting.reply) > len(apart) or any(message[2] != 1 for message in left.reply):
        raise Violation("nobody got it", f"{left} got {left.reply}, and the one who waited {waiting.reply}")


def dies_where_somebody_waits(script: Script) -> None:
    """One of two messages with the same payload dies, and somebody waits where the dead go."""
    a = script.a
    script.call(a, "Q.CREATE", "j", "DLQ", "jd", "DEDUP", "0")
    for _ in range(2):
        script.call(a, "Q.PUSH", "j", "v1", "ID", "id1")
    receipt = script.call(a, "Q.POP", "j").reply[0][0].decode()
    waiting = script.wait(a, "Q.POP", "jd", "BLOCK", "0")
    script.call(a, "Q.NACK", "j", receipt, "DEAD")
    script.until(lambda: waiting.done)
    script.call(a, "Q.ACK", "jd", waiting.reply[0][0].decode())


def given_and_cleared_at_once(script: Script) -> None:
    """Somebody waits for a message that comes, and is purged, in one entry."""
    a, typist = script.a, script.typist()
    script.call(a, "Q.CREATE", "j")
    waiting = script.wait(a, "Q.POP", "j", "BLOCK", "0")
    typist.ask(a, "Q.PUSH", "j", "v1")
    purged = script.send(a, "Q.PURGE", "j", typist=typist)
    script.until(lambda: waiting.done and purged.done)
    late = script.call(a, "Q.ACK", "j", waiting.reply[0][0].decode())
    if late.reply != 0:
        raise Violation("a receipt is of one delivery", f"{late} got {late.reply}")


OF_QUEUES: dict[Play, Shape] = {
    refused_in_another_shard: ON_FOUR,
    two_parts_at_once: ON_FOUR,
    dies_where_somebody_waits: ONE,
    given_and_cleared_at_once: ONE,
}
"""All of them, and of what cluster each is."""
