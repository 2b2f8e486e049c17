"""The MESI states of a line on a node, and how it gets from one to another: all of it, as two tables.

`LINE` is the node's side, `HOME` the directory's at the shard's leader. A pair
that is in neither table cannot happen; if it does, that is a bug, which is said.
The diagrams of docs/coherence.md are drawn from these tables.

Messages that are late, doubled or for a line that changed hands meanwhile are
no events: their numbers tell, before anybody looks here.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple


class State(Enum):
    """Of a line on a node; the value is what CACHE.STATE answers."""

    MODIFIED = "M"
    EXCLUSIVE = "E"
    SHARED = "S"
    INVALID = "I"


M, E, S, I = State.MODIFIED, State.EXCLUSIVE, State.SHARED, State.INVALID  # noqa: E741 - their names since 1984


class Event(Enum):
    """What can happen to a line."""

    READ = "a client reads"
    WRITE = "a client writes"
    FILL_SHARED = "granted, others have it"
    FILL_EXCLUSIVE = "granted, nobody else has it"
    CLEAN = "its change is on the way to memory"
    SHARE = "another node wants to read"
    INVALIDATE = "another node wants to write"
    OVERWRITE = "a write of it is in the log"
    LEAVE = "it is evicted, or its lease is over"


class Action(Enum):
    """What the node does about it."""

    SERVE = "answer from the line"
    FETCH = "ask to share it"
    CLAIM = "ask to own it"
    STORE = "change it here"
    KEEP = "keep what came"
    WRITE_BACK = "send the change to memory"
    ANSWER = "tell that it is so"
    DROP = "forget it"
    AWAIT = "wait until that is carried out here"


Table = Mapping[tuple[State, Event], tuple[State, tuple[Action, ...]]]

LINE: Table = {
    (I, Event.READ): (I, (Action.FETCH,)),
    (S, Event.READ): (S, (Action.SERVE,)),
    (E, Event.READ): (E, (Action.SERVE,)),
    (M, Event.READ): (M, (Action.SERVE,)),
    (I, Event.WRITE): (I, (Action.CLAIM,)),
    (S, Event.WRITE): (S, (Action.CLAIM,)),
    (E, Event.WRITE): (M, (Action.STORE,)),
    (M, Event.WRITE): (M, (Action.STORE,)),
    (I, Event.FILL_SHARED): (S, (Action.KEEP,)),
    (I, Event.FILL_EXCLUSIVE): (E, (Action.KEEP,)),
    (S, Event.FILL_EXCLUSIVE): (E, (Action.KEEP,)),
    (M, Event.CLEAN): (E, (Action.WRITE_BACK,)),
    (I, Event.SHARE): (I, (Action.ANSWER,)),
    (S, Event.SHARE): (S, (Action.ANSWER,)),
    (E, Event.SHARE): (S, (Action.ANSWER,)),
    (M, Event.SHARE): (S, (Action.WRITE_BACK, Action.ANSWER)),
    (I, Event.INVALIDATE): (I, (Action.DROP, Action.ANSWER)),
    (S, Event.INVALIDATE): (I, (Action.DROP, Action.ANSWER)),
    (E, Event.INVALIDATE): (I, (Action.DROP, Action.ANSWER)),
    (M, Event.INVALIDATE): (I, (Action.WRITE_BACK, Action.DROP, Action.ANSWER)),
    (S, Event.OVERWRITE): (I, (Action.AWAIT,)),
    (I, Event.OVERWRITE): (I, (Action.AWAIT,)),
    (I, Event.LEAVE): (I, (Action.DROP,)),
    (S, Event.LEAVE): (I, (Action.DROP,)),
    (E, Event.LEAVE): (I, (Action.DROP,)),
    (M, Event.LEAVE): (I, (Action.WRITE_BACK, Action.DROP)),
}


class Holding(Enum):
    """Of a line, as its directory sees it."""

    UNCACHED = "nobody holds it"
    SHARED = "some read it"
    OWNED = "one node has it alone, and may have changed it"


class Call(Enum):
    """What somebody wants with a line; ``OTHERS`` says whether anybody else holds it."""

    READ = "a cache wants to read it"
    READ_OTHERS = "a cache wants to read what others hold"
    OWN = "a cache wants to own it"
    OWN_OTHERS = "a cache wants to own what others hold"
    PLAIN_READ = "a command reads its key"
    PLAIN_WRITE = "a command names its key, and writes"


class Step(Enum):
    """What the directory does about it."""

    GRANT_SHARED = "grant it, to be shared"
    GRANT_EXCLUSIVE = "grant it, alone"
    RECALL_SHARE = "have the owner write back and share"
    RECALL_ALL = "have all others give it up"
    OVERWRITE = "let it into the log, which replicas watch, once others gave it up"
    GO_ON = "let the command go on"


class Decision(NamedTuple):
    """The holding afterwards, and the step; a recall first changes what is held, and then it is asked again."""

    holding: Holding
    step: Step


HOME: Mapping[tuple[Holding, Call], Decision] = {
    (Holding.UNCACHED, Call.READ): Decision(Holding.OWNED, Step.GRANT_EXCLUSIVE),
    (Holding.UNCACHED, Call.OWN): Decision(Holding.OWNED, Step.GRANT_EXCLUSIVE),
    (Holding.UNCACHED, Call.PLAIN_READ): Decision(Holding.UNCACHED, Step.GO_ON),
    (Holding.UNCACHED, Call.PLAIN_WRITE): Decision(Holding.UNCACHED, Step.GO_ON),
    (Holding.SHARED, Call.READ): Decision(Holding.OWNED, Step.GRANT_EXCLUSIVE),
    (Holding.SHARED, Call.READ_OTHERS): Decision(Holding.SHARED, Step.GRANT_SHARED),
    (Holding.SHARED, Call.OWN): Decision(Holding.OWNED, Step.GRANT_EXCLUSIVE),
    (Holding.SHARED, Call.OWN_OTHERS): Decision(Holding.SHARED, Step.RECALL_ALL),
    (Holding.SHARED, Call.PLAIN_READ): Decision(Holding.SHARED, Step.GO_ON),
    (Holding.SHARED, Call.PLAIN_WRITE): Decision(Holding.SHARED, Step.OVERWRITE),
    (Holding.OWNED, Call.READ): Decision(Holding.OWNED, Step.GRANT_EXCLUSIVE),
    (Holding.OWNED, Call.READ_OTHERS): Decision(Holding.OWNED, Step.RECALL_SHARE),
    (Holding.OWNED, Call.OWN): Decision(Holding.OWNED, Step.GRANT_EXCLUSIVE),
    (Holding.OWNED, Call.OWN_OTHERS): Decision(Holding.OWNED, Step.RECALL_ALL),
    (Holding.OWNED, Call.PLAIN_READ): Decision(Holding.OWNED, Step.RECALL_SHARE),
    (Holding.OWNED, Call.PLAIN_WRITE): Decision(Holding.OWNED, Step.RECALL_ALL),
}
