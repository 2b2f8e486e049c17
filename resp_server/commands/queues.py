"""At-least-once queues: the Q. commands."""

from __future__ import annotations

from cluster.machine import queues
from resp_server.commands.command import ONE_KEY, Command
from resp_server.commands.spreading import everywhere, in_order

COMMANDS = (
    Command(
        name="Q.CREATE",
        arity=-2,
        group="queue",
        summary="Creates a queue with settings of its own.",
        syntax=(
            "queue [PARTITIONS n] [VISIBILITY ms] [MAXDELIVERIES n] [BACKOFF min-ms max-ms] [DLQ queue] "
            "[MAXLEN n] [PX ms] [DEDUP ms]"
        ),
        reply=(
            "`OK`; `-BUSYKEY` when it exists. `PARTITIONS` spreads it over so many shards, all at most: a message goes "
            "to one by its `GROUP`, else its `ID`, else in turn, and higher priority goes first within each. `MAXLEN` "
            "is shared out evenly. Such a queue takes part in no transaction, and cannot be renamed or copied; "
            "`OK` comes when all nodes in touch know of it, within a second."
        ),
        flags=("write", "denyoom", "fast"),
        keys=ONE_KEY,
        example="Q.CREATE mail VISIBILITY 60000 MAXDELIVERIES 5 MAXLEN 100000",
        run=queues.create,
        careful=True,
    ),
    Command(
        name="Q.CONFIG",
        arity=-2,
        group="queue",
        summary="Changes a queue's settings, or shows them.",
        syntax="queue [option value ...]",
        reply=(
            "`OK`; without an option the map of the settings, null for no such queue. `0` is no limit, for `DEDUP` "
            "no memory; an empty `DLQ` is none. New settings hold for what happens from then on."
        ),
        flags=("write", "fast"),
        keys=ONE_KEY,
        example="Q.CONFIG mail MAXDELIVERIES 8 BACKOFF 500 30000",
        run=queues.config,
    ),
    Command(
        name="Q.PUSH",
        arity=-3,
        group="queue",
        summary="Adds a message to a queue, which is made with the default settings if there is none.",
        syntax="queue payload [ID id] [DELAY ms] [PRIORITY 0-255] [GROUP g] [PX ms]",
        reply=(
            "The message's id; the same id again, and nothing pushed, when `ID` was seen within `DEDUP`. "
            "`-QUEUEFULL` when `MAXLEN` messages that are not dead are there."
        ),
        flags=("write", "denyoom", "fast"),
        keys=ONE_KEY,
        example="Q.PUSH mail hello ID order:7 DELAY 5000 PRIORITY 9",
        run=queues.push,
    ),
    Command(
        name="Q.MPUSH",
        arity=-3,
        group="queue",
        summary="Adds several messages to a queue: all of them, or none.",
        syntax="queue payload [payload ...]",
        reply="Array of ids; `-QUEUEFULL` when not all fit.",
        complexity="O(N) where N is the number of payloads.",
        flags=("write", "denyoom", "fast"),
        keys=ONE_KEY,
        example="Q.MPUSH mail one two three",
        run=queues.mpush,
    ),
    Command(
        name="Q.POP",
        arity=-2,
        group="queue",
        summary="Takes messages, which come back unless they are acknowledged within their visibility.",
        syntax="queue [COUNT n] [BLOCK ms] [VISIBILITY ms] [CONSUMER name]",
        reply=(
            "Array of messages, each `[receipt, payload, deliveries, id]`; null when there is none (in time; at once "
            "when a queue with partitions of that name is made or deleted: ask again). "
            "Higher priority goes first, then first in, first out; of a group one at a time."
        ),
        complexity="O(N log M) where N is the number of messages taken and M of those that came back.",
        flags=("write", "blocking", "session"),
        keys=ONE_KEY,
        example="Q.POP mail COUNT 10 BLOCK 5000",
        run=queues.pop,
        retry=queues.retry_pop,
    ),
    Command(
        name="Q.ACK",
        arity=-3,
        group="queue",
        summary="Acknowledges deliveries: these messages are done with.",
        syntax="queue receipt [receipt ...]",
        reply="How many were acknowledged; a stale receipt counts 0.",
        complexity="O(N) where N is the number of receipts.",
        flags=("write", "fast"),
        keys=ONE_KEY,
        example="Q.ACK mail 17-1",
        run=queues.ack,
    ),
    Command(
        name="Q.NACK",
        arity=-3,
        group="queue",
        summary="Refuses a delivery: the message comes back after its back-off, or dies.",
        syntax="queue receipt [DELAY ms] [DEAD] [REASON text]",
        reply=(
            "1, or 0 for a stale receipt. `DELAY` replaces the back-off; `DEAD` makes it a dead letter at once. "
            "`REASON` (4096 bytes at most) is what `Q.DEAD` shows should the message die of this."
        ),
        flags=("write", "fast"),
        keys=ONE_KEY,
        example="Q.NACK mail 17-1 DELAY 1000",
        run=queues.nack,
    ),
    Command(
        name="Q.EXTEND",
        arity=4,
        group="queue",
        summary="Makes a delivery's visibility end so many milliseconds from now.",
        syntax="queue receipt ms",
        reply="1, or 0 for a stale receipt.",
        flags=("write", "fast"),
        keys=ONE_KEY,
        example="Q.EXTEND mail 17-1 60000",
        run=queues.extend,
    ),
    Command(
        name="Q.PEEK",
        arity=-2,
        group="queue",
        summary="Shows ready messages, or dead letters, without taking them.",
        syntax="queue [COUNT n] [DEAD]",
        reply=(
            "Array of up to `COUNT` (10) messages as `Q.POP` gives them, receipt null, in the order they would be "
            "handed out; null for no such queue. What stands behind a busy or delayed one of its group is left out."
        ),
        complexity="O(N log N) where N is the number of messages shown.",
        flags=("readonly",),
        keys=ONE_KEY,
        example="Q.PEEK mail COUNT 3",
        run=queues.peek,
    ),
    Command(
        name="Q.DEAD",
        arity=-2,
        group="queue",
        summary="Shows dead letters: how often they were delivered, when they died and why.",
        syntax="queue [COUNT n]",
        reply=(
            "Array of up to `COUNT` (10) maps `id payload queue deliveries pushed-ms died-ms reason`, oldest first; "
            "null for no such queue. `queue` is whose dead letter it is: this one's, or that of a queue with this one "
            "as its `DLQ`, until it is acknowledged here. Times are Unix milliseconds. `reason` is that of `Q.NACK`, "
            "else `refused`, `refused for good`, or `timed out` when the last visibility passed."
        ),
        complexity="O(N log M) where N is the number of letters shown and M of all there are.",
        flags=("readonly",),
        keys=ONE_KEY,
        example="Q.DEAD mail COUNT 3",
        run=queues.dead,
    ),
    Command(
        name="Q.LEN",
        arity=2,
        group="queue",
        summary="Counts the messages that are ready.",
        syntax="queue",
        reply="Messages ready now, those whose group is busy included; 0 for no such queue.",
        flags=("readonly", "fast"),
        keys=ONE_KEY,
        example="Q.LEN mail",
        run=queues.length,
    ),
    Command(
        name="Q.INFO",
        arity=2,
        group="queue",
        summary="Describes a queue: its messages, what happened to them, its settings.",
        syntax="queue",
        reply=(
            "Map: `ready delayed in-flight dead pushed acked redelivered expired oldest-ms consumers partitions nodes` "
            "and the settings; null for no such queue. `oldest-ms` is the age of the oldest message that is not dead, "
            "`consumers` how many names (without `CONSUMER`: connections) have a message in flight, "
            "`nodes` how many nodes have a replica of any of it."
        ),
        flags=("readonly", "fast"),
        keys=ONE_KEY,
        example="Q.INFO mail",
        run=queues.info,
    ),
    Command(
        name="Q.REDRIVE",
        arity=-2,
        group="queue",
        summary="Sends dead letters back to their queue, oldest first, as far as `MAXLEN` has room.",
        syntax="queue [COUNT n]",
        reply="How many went back: to the queue's end, with their ids and no deliveries yet.",
        complexity="O(N log M) where N is the number of messages sent back and M of dead letters.",
        flags=("write", "denyoom"),
        keys=ONE_KEY,
        example="Q.REDRIVE mail COUNT 100",
        run=queues.redrive,
    ),
    Command(
        name="Q.PURGE",
        arity=-2,
        group="queue",
        summary="Drops every message of a queue, or only its dead letters; settings, counters and seen ids stay.",
        syntax="queue [DEAD]",
        reply="How many were dropped.",
        complexity="O(N) where N is the number of messages dropped.",
        flags=("write",),
        keys=ONE_KEY,
        example="Q.PURGE mail DEAD",
        run=queues.purge,
    ),
    Command(
        name="Q.LIST",
        arity=-1,
        group="queue",
        summary="Lists the queues.",
        syntax="[MATCH pattern]",
        reply="Array of queue names, in the order of their bytes.",
        complexity="O(N) where N is the number of keys.",
        flags=("readonly",),
        example="Q.LIST MATCH mail:*",
        run=queues.list_,
        spread=everywhere(in_order),
    ),
)
