"""Reading a command's arguments, with Redis's own strictness and error texts."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.machine.reply import CommandError, syntax_error

INTEGER_MIN = -(2**63)
INTEGER_MAX = 2**63 - 1
INTEGER_BYTES_MAX = 20

NOT_AN_INTEGER = "value is not an integer or out of range"


def integer(text: bytes, error: str = NOT_AN_INTEGER) -> int:
    """A signed 64-bit integer as Redis's string2ll reads it, else ``-ERR`` with ``error``."""
    if len(text) <= INTEGER_BYTES_MAX:
        try:
            number = int(text)
        except ValueError:
            number = 0
        # Python also reads signs, blanks, zeros and underscores that Redis does not.
        if b"%d" % number == text and INTEGER_MIN <= number <= INTEGER_MAX:
            return number
    raise CommandError(error)


def is_integer(text: bytes) -> bool:
    """Whether ``text`` is an integer in canonical form, as the ``int`` encoding needs."""
    try:
        integer(text)
    except CommandError:
        return False
    return True


def bounded(text: bytes, low: int, high: int, error: str = NOT_AN_INTEGER) -> int:
    """An integer from ``low`` to ``high``, else ``-ERR`` with ``error``."""
    number = integer(text, error)
    if not low <= number <= high:
        raise CommandError(error)
    return number


class Options:
    """The words after a command's positional arguments, read from left to right.

    >>> options = Options(args, 3)
    >>> for word in options:
    ...     if word == b"PX": px_ms = integer(options.value())
    ...     else: raise syntax_error()
    """

    __slots__ = ("_args", "_next")

    def __init__(self, args: list[bytes], start: int) -> None:
        self._args = args
        self._next = start

    def __iter__(self) -> Iterator[bytes]:
        while self._next < len(self._args):
            word = self._args[self._next].upper()
            self._next += 1
            yield word

    def value(self) -> bytes:
        """The argument that belongs to the word just read; a syntax error when there is none."""
        if self._next >= len(self._args):
            raise syntax_error()
        self._next += 1
        return self._args[self._next - 1]

    def rest(self) -> list[bytes]:
        """Everything not read yet."""
        rest = self._args[self._next :]
        self._next = len(self._args)
        return rest
