"""The network between nodes: one link for each pair and direction, each with faults of its own.

A link delivers in order unless its weather says otherwise, as a connection
does; what a cut link is given is lost, and what is on its way arrives.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.simulation.world import MS, World


@dataclass(frozen=True, slots=True)
class Weather:
    """How a link treats messages: probabilities, and the delay it adds at most."""

    loss: float = 0.0
    double: float = 0.0
    late: float = 0.0  # as if sent through a longer way: it may be overtaken
    delay_us: int = 500  # at the most, and
    least_us: int = 100  # at the least
    late_us: int = 50 * MS
    ordered: bool = True


class Link:
    """One direction between two nodes."""

    __slots__ = ("cuts", "last_us", "weather")

    def __init__(self, weather: Weather) -> None:
        self.cuts = 0  # how many faults cut it now
        self.last_us = 0
        self.weather = weather


class Network:
    """All links, by (sender, receiver); ``fair`` is their weather when nothing is wrong."""

    def __init__(self, world: World, delay_us: int) -> None:
        self.fair = Weather(delay_us=delay_us)
        self._world = world
        self._links: dict[tuple[str, str], Link] = {}
        self.lost = 0
        self.sent = 0

    def link(self, sender: str, receiver: str) -> Link:
        """The link from one node to another."""
        found = self._links.get((sender, receiver))
        if found is None:
            found = self._links[sender, receiver] = Link(self.fair)
        return found

    def arrivals(self, sender: str, receiver: str) -> list[int]:
        """When a message that is sent now arrives: never, once, or twice."""
        world = self._world
        chance = world.chance
        self.sent += 1
        link = self.link(sender, receiver)
        weather = link.weather
        if link.cuts or (weather.loss and chance.random() < weather.loss):
            self.lost += 1
            return []
        arrival_us = world.now_us + weather.least_us + int(weather.delay_us * chance.random())
        if weather.ordered:
            if arrival_us <= link.last_us:
                arrival_us = link.last_us + 1
            link.last_us = arrival_us
        if weather.late and chance.random() < weather.late:
            arrival_us += int(weather.late_us * chance.random())
        if weather.double and chance.random() < weather.double:
            return [arrival_us, arrival_us + int(weather.late_us * chance.random())]
        return [arrival_us]

    def cut(self, pairs: list[tuple[str, str]]) -> None:
        """Cuts links, on top of whatever else cuts them."""
        for pair in pairs:
            self.link(*pair).cuts += 1

    def mend(self, pairs: list[tuple[str, str]]) -> None:
        """Takes one `cut` back."""
        for pair in pairs:
            link = self.link(*pair)
            link.cuts = max(0, link.cuts - 1)

    def heal(self) -> None:
        """Everything arrives again, in order."""
        for link in self._links.values():
            link.cuts = 0
            link.weather = self.fair
