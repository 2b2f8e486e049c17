"""ELECT.*"""

from __future__ import annotations

from cluster.machine import elections
from resp_server.commands.command import ONE_KEY, Command
from resp_server.commands.lives import with_default_life

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
        summary="Waits for a leader other than the one that is known.",
        syntax="key [TOKEN token] [BLOCK ms]",
        reply="As `ELECT.LEADER`, at once when somebody leads whose token is not the known one, else as soon as "
        "somebody is elected; null when the time is up. It answers once: to go on observing, ask again with the token "
        "it told. A new value of the same leader is no news.",
        flags=("readonly", "logged", "blocking", "session"),
        keys=ONE_KEY,
        example="ELECT.OBSERVE scheduler TOKEN 7 BLOCK 60000",
        run=elections.observe,
        retry=elections.retry_observe,
    ),
)
