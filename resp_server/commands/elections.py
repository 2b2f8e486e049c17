"""ELECT.*"""

from __future__ import annotations

from cluster.machine import elections
from cluster.machine.hold_requests import read_options, read_token
from cluster.machine.reply import CommandError, Reply
from resp_server.commands.command import ONE_KEY, Command
from resp_server.commands.lives import with_default_life
from resp_server.places import Finish
from resp_server.session import Session


def _observing(session: Session, args: list[bytes]) -> Finish | None:
    """ELECT.OBSERVE with PUSH: the answer is as without it, and from then on the client hears of other leaders."""
    found = read_options(args, 2, elections.OBSERVE)
    if b"PUSH" not in found:
        return None
    if session.protocol < 3:
        raise CommandError("PUSH needs RESP3 (HELLO 3); with RESP2 wait with BLOCK")

    def begin(reply: Reply) -> Reply:
        if type(reply) is not CommandError:
            session.server.observers.begin(session, args[1], reply[1] if type(reply) is list else read_token(found))
        return reply

    return begin


def _unobserve(session: Session, args: list[bytes]) -> Reply:
    return int(session.server.observers.end(session, args[1]))


COMMANDS = (
    Command(
        name="ELECT.CAMPAIGN",
        arity=-3,
        group="election",
        summary="Becomes the leader, at once or by waiting for it.",
        syntax="key candidate [VALUE value] [PX ms | SESSION] [BLOCK ms]",
        reply="The fencing token of the leadership, an integer; null when not elected in time. For 30000 ms unless "
        "told otherwise. The leader gets its token again and lives on: `PX` never shortens its time, `VALUE` replaces "
        "what it announces. Candidates are elected first come, first served.",
        flags=("write", "denyoom", "blocking", "session"),
        keys=ONE_KEY,
        example="ELECT.CAMPAIGN scheduler node-a VALUE 10.0.0.1:80 SESSION BLOCK 0",
        run=elections.campaign,
        prepare=with_default_life(elections.CAMPAIGN, lambda _args: 3),
        retry=elections.retry_campaign,
    ),
    Command(
        name="ELECT.RESIGN",
        arity=-3,
        group="election",
        summary="Gives up the leadership.",
        syntax="key candidate [TOKEN token]",
        reply="1, or 0 when the candidate does not lead or with another token.",
        flags=("write", "fast"),
        keys=ONE_KEY,
        example="ELECT.RESIGN scheduler node-a",
        run=elections.resign,
    ),
    Command(
        name="ELECT.LEADER",
        arity=2,
        group="election",
        summary="Tells who leads.",
        syntax="key",
        reply="Array of candidate, token and value (null for none); null when nobody leads.",
        flags=("readonly", "fast"),
        keys=ONE_KEY,
        example="ELECT.LEADER scheduler",
        run=elections.leader,
    ),
    Command(
        name="ELECT.OBSERVE",
        arity=-2,
        group="election",
        summary="Tells who leads, once it is not the one that is known, or from now on.",
        syntax="key [TOKEN token] [BLOCK ms | PUSH]",
        reply="As `ELECT.LEADER`, at once when somebody leads whose token is not the known one, else as soon as "
        "somebody is elected; null when the time is up. It answers once: to go on observing, ask again with the token "
        "it told. Or, with RESP3, say `PUSH`: the answer comes at once, null for nobody new, and every leader after "
        "it as a push `elect key candidate token value`, until `ELECT.UNOBSERVE`, `RESET`, `HELLO 2` or the end of the "
        "connection. Pushes come in order and never twice; of leaders that follow each other at once perhaps only the "
        "last. `elect key error` is the last of all, when the key is no election any more. A new value of "
        "the same leader is no news.",
        flags=("readonly", "logged", "blocking", "session"),
        keys=ONE_KEY,
        example="ELECT.OBSERVE scheduler TOKEN 7 BLOCK 60000",
        run=elections.observe,
        retry=elections.retry_observe,
        follow=_observing,
    ),
    Command(
        name="ELECT.UNOBSERVE",
        arity=2,
        group="election",
        summary="Ends the pushes that `ELECT.OBSERVE` began.",
        syntax="key",
        reply="1, or 0 when this client does not observe the election.",
        flags=("noscript", "loading", "stale", "fast"),
        keys=ONE_KEY,
        example="ELECT.UNOBSERVE scheduler",
        serve=_unobserve,
    ),
)
