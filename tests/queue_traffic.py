"""Producers and consumers of queues at all nodes of a cluster, as tasks of one event loop in one thread.

They write down all they see in a `QueueHistory`, go to another node when one
fails them, and end with the block that `traffic` is, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import hiredis

from tests.callers import DID_NOT_HAPPEN, MAY_HAVE_HAPPENED, NotDone, Unsure
from tests.clusters import Cluster, Node, error_of, text_of
from tests.queue_history import CLOCKS_DIFFER_S, Delivery, Ending, Item, QueueHistory, account
from tests.raw_client import Word, packed
from tests.rings import Ring
from tests.servers import HOST, wait_until

REPLY_SECONDS = 3.0
BACK_OFF_SECONDS = 0.02
VISIBILITY_MS = 1500
PATIENT_VISIBILITY_MS = 8_000
"""Where nothing is to come twice, not even when the machine lets a process wait for long."""
BLOCK_MS = 500
DRAIN_SECONDS = 45.0
ACCOUNT_SECONDS = 30.0
JOIN_SECONDS = 20.0
GROUPS = 3  # of each producer
ENOUGH_TRIES = 400
"""How often something is tried before it is the test's failure: for far longer than any fault lasts."""

PRODUCERS = 2  # of each queue
CONSUMERS = (1, 1, 2, 8)  # how many each takes at a time, of each queue


@dataclass(frozen=True)
class Plan:
    """A queue: how it is made, and what comes into it. ``dlq`` is where its dead go, None when they stay."""

    name: str
    options: tuple[Word, ...]
    groups: bool = True
    dlq: str | None = None

    @property
    def is_spread(self) -> bool:
        return "PARTITIONS" in self.options


def three_queues(ring: Ring, run: str) -> list[Plan]:
    """A queue of one part, one of eight, and one whose dead letters go to a queue of another shard."""
    dying = f"dying {run}"
    grave = ring.key_in((ring.of(dying).shard + 1) % len(ring.rows), f"grave {run}")
    return [
        Plan(f"one {run}", ()),
        Plan(f"eight {run}", ("PARTITIONS", 8)),
        Plan(dying, ("DLQ", grave, "MAXDELIVERIES", 3, "BACKOFF", 5, 50), groups=False, dlq=grave),
    ]


class Visitor:
    """A connection to some node, to another one after each failure."""

    def __init__(self, nodes: Sequence[Node], chance: random.Random) -> None:
        self._nodes = nodes
        self._chance = chance
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._reader = hiredis.Reader(replyError=hiredis.ReplyError)
        self.at = "nowhere"

    async def call(self, *words: Word, wait_s: float = 0.0) -> Any:
        """The reply; raises `NotDone` and `Unsure`, and what any other error is as `AssertionError`."""
        try:
            async with asyncio.timeout(REPLY_SECONDS + wait_s):
                reader, writer = await self._connected()
                try:
                    writer.write(packed(*words))
                    while (reply := self._reader.gets()) is False:
                        data = await reader.read(1 << 16)
                        if not data:
                            raise ConnectionResetError("closed by the server")
                        self._reader.feed(data)
                except OSError as error:
                    raise Unsure(str(error)) from None
        except TimeoutError:
            self.leave()
            raise Unsure("no reply in time") from None
        except (NotDone, Unsure):
            self.leave()
            raise
        if isinstance(reply, hiredis.ReplyError):
            text = str(reply)
            if text.startswith(DID_NOT_HAPPEN):
                self.leave()
                raise NotDone(text)
            if text.startswith(MAY_HAVE_HAPPENED):
                self.leave()
                raise Unsure(text)
            raise AssertionError(f"{words[:2]}: {text}")
        return reply

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            node = self._chance.choice([one for one in self._nodes if one.serves] or list(self._nodes))
            try:
                self._streams = await asyncio.open_connection(HOST, node.port)
            except OSError as error:
                raise NotDone(str(error)) from None
            self._reader = hiredis.Reader(replyError=hiredis.ReplyError)
            self.at = node.name
        return self._streams

    def leave(self) -> None:
        """Closes the connection; the next call makes another."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


class Traffic:
    """What goes on in some queues. Everything but the tasks may be called by the test's thread."""

    def __init__(
        self, cluster: Cluster, plans: Sequence[Plan], seed: int, rest_s: float, visibility_ms: int = VISIBILITY_MS
    ) -> None:
        self.history = QueueHistory()
        self.excuses: Counter[str] = Counter()
        self.worked_off: Counter[str] = Counter()
        self.failures: list[BaseException] = []
        self.pushed = 0
        self._cluster = cluster
        self._nodes = list(cluster.nodes.values())
        self._plans = plans
        self._seed = seed
        self._rest_s = rest_s
        self._visibility_ms = visibility_ms
        self._enough = threading.Event()
        self._over = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    # For the test

    def start(self) -> None:
        """Makes the queues, and begins."""
        for plan in self._plans:
            self._make(plan)
        self._thread.start()

    def _make(self, plan: Plan) -> None:
        """Asks for it until it is there: a shard may be about to change its leader."""
        told: list[str] = []

        def is_made() -> bool:
            client = self._cluster.serving[0].raw()
            told.append(error_of(client, "Q.CREATE", plan.name, *plan.options))
            client.socket.close()
            return not told[-1] or (told[-1].startswith("BUSYKEY") and len(told) > 1)

        self._cluster.wait_until(is_made)

    def joined_by(self, node: Node) -> None:
        """One more for clients to go to."""
        self._nodes.append(node)

    def left_by(self, node: Node) -> None:
        """One fewer."""
        self._nodes.remove(node)

    def fault(self, what: str) -> None:
        """Something happens to the cluster now."""
        self.history.faults.append((time.monotonic(), what))

    def goes_on(self, count: int = 40) -> None:
        """Returns once so many more messages of each queue were worked off."""
        wanted = {plan.name: self.worked_off[plan.name] + count for plan in self._plans}
        before = self.excuses.copy()

        def went_on() -> bool:
            self._raise()
            return all(self.worked_off[name] >= number for name, number in wanted.items())

        try:
            wait_until(went_on)
        except AssertionError as failure:
            if self.failures:
                raise
            told = (self.excuses - before).most_common(8)
            text = f"it does not go on: {dict(self.worked_off)} of {wanted}; clients were told {told}"
            raise AssertionError(f"{text}\n{self._cluster.account()}") from failure

    def finish(self) -> None:
        """No more is pushed; returns once everything that was is worked off, and all clients have left."""
        self._enough.set()
        self._thread.join(DRAIN_SECONDS + JOIN_SECONDS)
        assert not self._thread.is_alive(), "the clients do not end"
        self._raise()

    def close(self) -> None:
        """Ends everything at once, whatever state it is in; a second time does nothing."""
        self._enough.set()
        self._over.set()
        loop, main = self._loop, self._main
        if self._thread.is_alive() and loop is not None and main is not None:
            with contextlib.suppress(RuntimeError):  # it has just ended by itself
                loop.call_soon_threadsafe(main.cancel)
        if self._thread.ident is not None:
            self._thread.join(JOIN_SECONDS)
        assert not self._thread.is_alive(), "the clients do not end"

    def broken(self, *, calm: bool = False) -> list[str]:
        """Every breach of a law, after `finish`, as every node that serves tells it."""
        findings = []
        for plan in self._plans:
            findings += self.history.broken(plan.name, calm=calm)
            if not plan.is_spread:
                findings += self.history.ordered(plan.name)
            for node in self._cluster.serving:
                told = [f"{node}: {what}" for what in self._account(plan, node)]
                findings += told
        return findings

    def check(self, *, calm: bool = False) -> None:
        """Fails, and tells the stories, when a law was broken."""
        findings = self.broken(calm=calm)
        if findings:
            faults = "\n".join(f"    {at_s:10.4f} {what}" for at_s, what in self.history.faults)
            text = "\n\n".join(findings[:10])
            raise AssertionError(f"{len(findings)} breaches\nfaults:\n{faults}\n{text}\n{self._cluster.account()}")

    def _account(self, plan: Plan, node: Node) -> list[str]:
        """What is wrong with what a node says of the queue; letters to a DLQ may still be under way for a moment."""
        items = self.history.of(plan.name)
        found: list[str] = []

        def adds_up() -> bool:
            where = (plan.dlq,) if plan.dlq is not None else (plan.name, "DEAD")
            client = node.raw()
            info = client.call("Q.INFO", plan.name)
            letters = client.call("Q.PEEK", where[0], "COUNT", 1_000_000, *where[1:]) or []
            client.socket.close()
            errors = [f"it was told {reply}" for reply in (info, letters) if isinstance(reply, hiredis.ReplyError)]
            found[:] = errors or account(items, text_of(_map(info)), [letter[1] for letter in letters])
            return not found

        with contextlib.suppress(AssertionError):
            wait_until(adds_up, ACCOUNT_SECONDS)
        return found

    def _raise(self) -> None:
        if self.failures:
            raise self.failures[0]

    # The thread

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                self._loop = runner.get_loop()
                runner.run(self._everybody())
        except asyncio.CancelledError:
            return
        except BaseExceptionGroup as group:
            self.failures.extend(group.exceptions)
        except BaseException as failure:  # noqa: BLE001 - `_raise` raises it
            self.failures.append(failure)

    async def _everybody(self) -> None:
        self._main = asyncio.current_task()
        if self._over.is_set():
            return
        async with asyncio.TaskGroup() as consumers:
            working = [
                consumers.create_task(self._consume(plan, number, count))
                for plan in self._plans
                for number, count in enumerate(CONSUMERS)
            ]
            async with asyncio.TaskGroup() as producers:
                for plan in self._plans:
                    for number in range(PRODUCERS):
                        producers.create_task(self._produce(plan, number))
            for plan in self._plans:
                await self._drained(plan)
            for task in working:
                task.cancel()

    def _visitor(self, name: str) -> Visitor:
        return Visitor(self._nodes, random.Random(f"{self._seed} {name}"))

    async def _drained(self, plan: Plan) -> None:
        """Returns once the queue says that nothing is left to do, or has been given enough time to."""
        visitor = self._visitor(f"{plan.name} looks")
        give_up_s = time.monotonic() + DRAIN_SECONDS
        try:
            while time.monotonic() < give_up_s:
                with contextlib.suppress(NotDone, Unsure):
                    info = text_of(_map(await visitor.call("Q.INFO", plan.name)))
                    if not (info["ready"] or info["delayed"] or info["in-flight"]):
                        return
                await asyncio.sleep(BACK_OFF_SECONDS)
        finally:
            visitor.leave()

    # Producers

    async def _produce(self, plan: Plan, number: int) -> None:
        chance = random.Random(f"{self._seed} {plan.name} {number}")
        visitor = self._visitor(f"{plan.name} produces {number}")
        places: Counter[str] = Counter()
        sent = 0
        try:
            while not self._enough.is_set():
                sent += 1
                item = self._item(plan, f"{plan.name}/{number}.{sent}", f"{number}", places, chance)
                await self._push(visitor, item, has_id=item.group is not None or chance.random() < 0.85)
                await asyncio.sleep(self._rest_s)
        finally:
            visitor.leave()

    def _item(self, plan: Plan, payload: str, producer: str, places: Counter[str], chance: random.Random) -> Item:
        item = Item(plan.name, payload.encode())
        die = chance.random()
        item.is_poison = chance.random() < 0.04
        if plan.groups and die < 0.4:
            item.group = f"{producer}.{chance.randrange(GROUPS)}"
            places[item.group] += 1
            item.place = places[item.group]
        elif die < 0.8:
            item.priority = chance.randrange(3)
        elif die < 0.9:
            item.delay_ms = chance.randrange(1, 400)
        self.history.items[item.payload] = item
        return item

    async def _push(self, visitor: Visitor, item: Item, *, has_id: bool) -> None:
        """One with an ID is pushed again until that is acknowledged, one without only if it certainly was not."""
        words: list[Word] = ["Q.PUSH", item.queue, item.payload]
        if has_id:
            words += ["ID", item.payload]
        if item.group is not None:
            words += ["GROUP", item.group]
        if item.priority:
            words += ["PRIORITY", item.priority]
        if item.delay_ms:
            words += ["DELAY", item.delay_ms]
        for _ in range(ENOUGH_TRIES):
            item.note(time.monotonic(), f"pushed{' with its id' if has_id else ''}")
            try:
                reply = await visitor.call(*words)
            except (NotDone, Unsure) as excuse:
                item.note(time.monotonic(), f"push at {visitor.at}: {type(excuse).__name__} {excuse}")
                self.excuses[str(excuse)] += 1
                if isinstance(excuse, Unsure) and not has_id:
                    item.doubtful = True
                    return
                await asyncio.sleep(BACK_OFF_SECONDS)
                continue
            assert not has_id or reply == item.payload, reply
            item.safe_s = time.monotonic()
            item.note(item.safe_s, f"push acknowledged by {visitor.at} as {reply!r}")
            self.pushed += 1
            return
        raise AssertionError(f"it cannot be pushed\n{item.story()}")

    # Consumers

    async def _consume(self, plan: Plan, number: int, count: int) -> None:
        chance = random.Random(f"{self._seed} {plan.name} consumes {number}")
        visitor = self._visitor(f"{plan.name} consumes {number}")
        name = f"consumer {number}"
        call: list[Word] = ["Q.POP", plan.name, "BLOCK", BLOCK_MS, "VISIBILITY", self._visibility_ms]
        call += ["CONSUMER", name]
        if count > 1:
            call += ["COUNT", count]
        try:
            while True:
                sent_s = time.monotonic()
                try:
                    taken = await visitor.call(*call, wait_s=BLOCK_MS / 1000) or []
                except (NotDone, Unsure) as excuse:
                    self.excuses[str(excuse)] += 1
                    await asyncio.sleep(BACK_OFF_SECONDS)
                    continue
                told_s = time.monotonic()
                for receipt, payload, deliveries, _ in taken:
                    again_s = sent_s + self._visibility_ms / 1000 - CLOCKS_DIFFER_S
                    by = f"{name} at {visitor.at}"
                    self._given(plan, payload, Delivery(receipt, deliveries, sent_s, told_s, by, again_s))
                await self._work(visitor, chance, [(one[0], one[1]) for one in taken])
        finally:
            visitor.leave()

    def _given(self, plan: Plan, payload: bytes, delivery: Delivery) -> None:
        item = self.history.items.get(payload)
        if item is None or item.queue != plan.name:
            self.history.foreign.append(f"{payload!r} of {plan.name} was never pushed")
            return
        item.given.append(delivery)
        asked_s = delivery.told_s - delivery.sent_s
        item.note(delivery.told_s, f"given to {delivery.by}: {delivery.receipt!r}, asked for {asked_s:.4f} s before")

    async def _work(self, visitor: Visitor, chance: random.Random, taken: list[tuple[bytes, bytes]]) -> None:
        """Most are acknowledged, together now and then; some are refused; some forgotten, by a client that is gone."""
        good = []
        for receipt, payload in taken:
            item = self.history.items[payload]
            is_first = receipt.endswith(b"-1")
            if item.is_poison:
                kill = (b"DEAD",) if chance.random() < 0.5 else (b"DELAY", b"5")
                await self._end(visitor, "dead" if kill[0] == b"DEAD" else "nack", [(item, receipt)], *kill)
            elif is_first and chance.random() < 0.04:
                await self._end(visitor, "nack", [(item, receipt)], b"DELAY", b"10")
            elif is_first and chance.random() < 0.01:
                item.note(time.monotonic(), "forgotten")
                item.endings.append(Ending("forget", receipt, time.monotonic()))
            else:
                good.append((item, receipt))
        if good:
            await self._end(visitor, "ack", good)

    async def _end(self, visitor: Visitor, what: str, ended: list[tuple[Item, bytes]], *options: bytes) -> None:
        """Acknowledges or refuses, until that is known or hopeless."""
        queue = ended[0][0].queue
        name = "Q.ACK" if what == "ack" else "Q.NACK"
        for _ in range(3):
            tries = [Ending(what, receipt, time.monotonic()) for _, receipt in ended]
            for (item, _), one in zip(ended, tries, strict=True):
                item.endings.append(one)
            try:
                reply = await visitor.call(name, queue, *(receipt for _, receipt in ended), *options)
            except (NotDone, Unsure) as excuse:
                self.excuses[str(excuse)] += 1
                for item, receipt in ended:
                    item.note(time.monotonic(), f"{what} {receipt!r}: {type(excuse).__name__} {excuse}")
                await asyncio.sleep(BACK_OFF_SECONDS)
                continue
            told_s = time.monotonic()
            for (item, receipt), one in zip(ended, tries, strict=True):
                one.told_s = told_s
                one.reply = 1 if reply == len(ended) else 0 if reply == 0 else None
                item.note(one.sent_s, f"{what} {receipt!r} sent")
                item.note(told_s, f"{what} {receipt!r} at {visitor.at}: {reply} of {len(ended)}")
            self.worked_off[queue] += reply
            return


def _map(reply: Any) -> dict[bytes, Any]:
    """A map of RESP2, which is an array of pairs."""
    return dict(zip(reply[::2], reply[1::2], strict=True))


@contextlib.contextmanager
def traffic(
    cluster: Cluster, plans: Sequence[Plan], *, seed: int, rest_s: float = 0.01, visibility_ms: int = VISIBILITY_MS
) -> Iterator[Traffic]:
    """Traffic that must survive what the block does. Whatever happens, no client of it outlives the block."""
    running = Traffic(cluster, plans, seed, rest_s, visibility_ms)
    try:
        running.start()
        yield running
    finally:
        running.close()
