"""What a client is to do next, and what came of it: the words in which `holding` and `consuming` speak.

There is no socket, clock or thread here or there. A procedure is a generator: it
yields what is to be done (`Ask` a server, `Pause`) and is sent what came of an
`Ask`: a `Reply`, a `Refusal`, or that nobody was `Unreached` or the answer was
`Lost`. Whoever drives it only does as told (`resp_server.client_lines`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

Word = str | bytes | int
Words = tuple[str | bytes, ...]
"""No numbers: hiredis ends the whole program when a signal comes while it packs one."""

REPLY_S = 5.0
"""How long a server may take for what does not wait for others, before the connection counts as lost."""

CLOCKS_DIFFER = 0.01
"""By how much of its length a time may be shorter on the server's clock than on this one."""

RENEWALS = 3
"""What is held for a time is renewed when this part of it is over."""

GIVE_BACK_S = 5.0
"""How long giving back is tried: others can have it after its time anyhow."""

PAUSE_FIRST_S = 0.02
PAUSE_MAX_S = 1.0

PASSING = frozenset({"CLUSTERDOWN", "LOADING", "MASTERDOWN", "TRYAGAIN", "UNCERTAIN"})
"""Errors that may be over in a moment. Only after ``UNCERTAIN`` what was asked may have happened."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Send these words; without an answer within ``within_s`` the connection counts as lost."""

    words: Words
    within_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait; then send None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered."""

    value: object


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error the server answered: its first word, and all of it."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Unreached:
    """No connection: nothing was sent."""

    text: str


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer: what was sent may have been carried out, or may yet be."""

    text: str


Outcome = Reply | Refusal | Unreached | Lost
Steps = Generator[Ask | Pause, Outcome | None, None]


class Pauses:
    """How long to wait before asking again: longer each time nothing came of it, and never the same for two clients.

    ``chance`` gives a number from 0 to 1.
    """

    def __init__(self, chance: Callable[[], float], most_s: float = PAUSE_MAX_S) -> None:
        self._chance = chance
        self._most_s = min(PAUSE_MAX_S, most_s)
        self._count = 0

    def next_s(self) -> float:
        """The next one."""
        pause_s = min(self._most_s, PAUSE_FIRST_S * float(2 ** min(self._count, 10)))
        self._count += 1
        return pause_s * (0.5 + self._chance() / 2)

    def reset(self) -> None:
        """Something came of it."""
        self._count = 0


def written(word: Word) -> str | bytes:
    """As commands have it."""
    return word if isinstance(word, bytes) else str(word)


def shown(word: Word) -> str:
    """As messages for people have it."""
    return repr(word.decode("utf-8", "backslashreplace") if isinstance(word, bytes) else str(word))
