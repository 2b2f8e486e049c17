"""Situations of sessions whose node is dead, cut off or stopped, set up by hand: as scripts.py.

What must hold is judged by `tests.simulation.standing`: who had something that
is ended knows of it before that.
"""

from __future__ import annotations

from tests.simulation.clocks import DRIFT
from tests.simulation.process import Process
from tests.simulation.scripts import Play, Script
from tests.simulation.sessions import Op
from tests.simulation.world import MS, SECOND, Violation

WAITS = ("SESSION", "BLOCK", "0")


class Heir:
    """Somebody at ``node`` holds a lock with its session, and somebody at the leader's waits for it."""

    def __init__(self, script: Script, node: Process) -> None:
        self._script = script
        self.timeout_us = int(script.simulation.session_timeout_ms * MS)
        script.run(300)
        self.held = script.call(node, "LOCK.ACQUIRE", "s", "holder", "SESSION")
        heir = script.b if node is not script.b else script.c
        self.waiting: Op = script.wait(heir, "LOCK.ACQUIRE", "s", "heir", *WAITS)
        self.begun_us = script.world.now_us

    def is_next(self) -> None:
        """It is granted the lock, and not before the timeout."""
        world = self._script.world
        limit_us = world.now_us + self.timeout_us + 5 * SECOND
        self._script.until(lambda: self.waiting.done or world.now_us > limit_us, self.timeout_us + 10 * SECOND)
        if not self.waiting.done:
            raise Violation("progress", f"{self.waiting} goes on, and {self.held.session} is over")
        if world.now_us - self.begun_us < self.timeout_us * (1 - 2 * DRIFT) or not self.held.session.closed:
            raise Violation("told before it ends", f"{self.waiting} is granted at {world.now_us} us")


def dead(script: Script) -> None:
    """The node of a session is lost."""
    heir = Heir(script, script.c)
    script.c.crash()
    heir.is_next()
    script.simulation.start(script.c)


def cut_off(script: Script) -> None:
    """The node of a session is cut off: its clock is slow, and the leader's is fast."""
    script.c.clock.change_rate(1 - DRIFT, script.world.now_us)
    script.a.clock.change_rate(1 + DRIFT, script.world.now_us)
    heir = Heir(script, script.c)
    script.isolate(script.c)
    heir.is_next()
    script.heal()
    script.run(500)


def heard_and_deaf(script: Script) -> None:
    """The node of a session is heard by the leader, and hears nothing."""
    heir = Heir(script, script.c)
    script.cut((script.a, script.c), (script.b, script.c))
    heir.is_next()
    script.heal()


def unheard(script: Script) -> None:
    """The node of a session hears the others, and none of them hears it."""
    heir = Heir(script, script.c)
    script.cut((script.c, script.a), (script.c, script.b))
    heir.is_next()
    script.heal()
    script.run(500)


def new_leader_meanwhile(script: Script) -> None:
    """A node is cut off, and the leader is followed by another when the time is nearly over: that one counts anew."""
    b, c = script.b, script.c
    heir = Heir(script, c)
    script.isolate(c)
    script.run(heir.timeout_us * 0.7 / MS)
    script.hand_over(b)
    heir.begun_us = script.world.now_us
    heir.is_next()
    script.heal()
    script.run(500)


def heard_by_one(script: Script) -> None:
    """A node is heard by the leader only, which is followed by another: that one has not heard of it for long."""
    b, c = script.b, script.c
    heir = Heir(script, c)
    script.cut((b, c), (c, b))
    script.run(heir.timeout_us * 1.5 / MS)
    if heir.held.session.closed or heir.waiting.done:
        raise Violation("a hold lives", f"{heir.held.session} is closed, and its leader hears it")
    script.isolate(c)
    script.hand_over(b)
    heir.begun_us = script.world.now_us
    heir.is_next()
    script.heal()
    script.run(500)


def leader_cut_off(script: Script) -> None:
    """The leader itself is cut off, with a client of its own that holds something."""
    a, b, c = script.a, script.b, script.c
    heir = Heir(script, a)
    script.isolate(a)
    script.until(lambda: script.leads(b) or script.leads(c))
    heir.is_next()
    script.heal()
    script.run(500)


def stopped(script: Script) -> None:
    """The node of a session is stopped until long after its session was ended: it closes before it answers."""
    c = script.c
    heir = Heir(script, c)
    c.stop(heir.timeout_us + 3 * SECOND)
    script.until(lambda: heir.waiting.done, heir.timeout_us + 3 * SECOND)
    heir.held.session.process.request(lambda: _asks(heir.held))
    script.run(4000)
    if not heir.held.session.closed:
        raise Violation("closed before it answers", f"{heir.held.session} is open")


def left_unsure(script: Script) -> None:
    """A client is told that the outcome of its acquire is not known, and leaves before its node knows it."""
    a, b, c = script.a, script.b, script.c
    script.run(300)
    typist = script.typist()
    script.cut((a, c), (b, c))
    asked = script.send(c, "LOCK.ACQUIRE", "s", "holder", "SESSION", typist=typist)
    script.until(lambda: asked.done)
    typist.leave()
    script.heal()
    taken = script.send(a, "LOCK.ACQUIRE", "s", "next", *WAITS)
    script.run(2000)
    if not isinstance(taken.output, int):
        raise Violation("nothing is the dead's", f"{asked} got {asked.output!r}, {taken} got {taken.output!r}")


def _asks(held: Op) -> None:
    if not held.session.closed:
        held.session.execute((b"LOCK.INFO", b"s"))


LAPSES: tuple[Play, ...] = (
    dead,
    cut_off,
    heard_and_deaf,
    unheard,
    new_leader_meanwhile,
    heard_by_one,
    leader_cut_off,
    stopped,
    left_unsure,
)
"""All of them."""
