"""Bytes from a client to commands: arrays of bulk strings, and inline lines.

Two paths give the same result for every byte string. The fast one lets hiredis parse a chunk of whole frames. hiredis
was made for replies, so it takes more than a request may hold (statuses, maps, nested arrays, any two bytes where a
bulk's CRLF belongs, a list allocated for whatever length a header claims). What it gives back is therefore used only
when it provably came from plain arrays of bulk strings. Everything else goes to the careful path, an incremental parser
with Redis 7.4's checks in Redis's order: frames cut by the end of a chunk, inline lines, errors, a client that has yet
to authenticate.

Two deliberate differences from Redis: a NUL byte in a line is an ordinary byte (Redis never sees the end of such a
line), and a line is too long after the same byte however it was cut into packets.

The weak spot is the list of type bytes in `RequestParser.feed`: one more type that hiredis reads as bytes or as a list
must be added there.
"""

import re
from dataclasses import dataclass
from itertools import chain
from typing import Any

import hiredis

ASTERISK, DOLLAR, CARRIAGE_RETURN, LINE_FEED = b"*$\r\n"
ARGUMENTS_UNAUTHENTICATED = 10
BULK_BYTES_UNAUTHENTICATED = 16_384
ARGUMENT_BYTES_MIN = 6  # b"$0\r\n\r\n"

SENTINEL = b"+\r\n"  # read back as b"" when the bytes before it were whole frames
END = object()  # what a reader returns for "no whole frame": unlike its default False, equal to no reply
LONG_ARRAY = re.compile(rb"\*\d{3}").search
ARRAY_CLAIMS = re.compile(rb"\*(\d{3,10})").findall
LONG_FOREIGN = (re.compile(rb"~\d{3}").search, re.compile(rb">\d{3}").search, re.compile(rb"\|\d{3}").search)
UNREADABLE = (hiredis.HiredisError, TypeError, ValueError)

INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}").fullmatch
INT64 = range(-(2**63), 2**63)
WORD = re.compile(
    rb"""\s*+(?=.)(?P<bare>[^ \n\r\t"']*+)"""
    rb"""(?:"(?P<double>(?:\\.|[^"\\])*+)"(?=\s|\Z)|'(?P<single>(?:\\'|[^'])*+)'(?=\s|\Z))?+""",
    re.DOTALL,
).match
ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
CONTROLS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


class ProtocolError(Exception):
    """The client broke the protocol; the connection is answered with `line` and closed.

    `line` is the error reply without its leading `-` and without CRLF, or b"" where Redis closes without a reply.
    """

    def __init__(self, line: bytes) -> None:
        super().__init__(line.decode("latin-1"))
        self.line = line


class _Unauthenticated(ProtocolError):
    """Refused only because the client has not authenticated yet."""


@dataclass(slots=True)
class Limits:
    """What a request may claim; one record shared by all connections, whose fields may change at any time.

    `bulk_bytes_max` is Redis's `proto-max-bulk-len`, `query_buffer_bytes_max` its `client-query-buffer-limit`,
    `inline_bytes_max` also bounds the line of a length header. `arguments_max` is at least 100.
    """

    bulk_bytes_max: int = 512 * 2**20
    arguments_max: int = 1_048_576
    inline_bytes_max: int = 65_536
    query_buffer_bytes_max: int = 2**30


class _SharedReader:
    """The one hiredis reader of the process, empty between calls; whoever leaves bytes in it calls `renew`."""

    __slots__ = ("feed", "gets", "has_data")

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Start over with a new reader: hiredis cannot drop a half-read frame."""
        reader = hiredis.Reader(notEnoughData=END)
        self.feed = reader.feed
        self.gets = reader.gets
        self.has_data = reader.has_data


_shared = _SharedReader()


class RequestParser:
    """The request side of one connection: received chunks in, complete commands out.

    A command is a list of one or more byte strings. After a protocol error `error` is set: the commands `feed` returned
    with it are still good, and later feeds return nothing.

    While `authenticated` is false Redis allows 10 arguments of 16,384 bytes. A larger command behind others waits until
    those were run, since one of them may be the `AUTH`: call `feed(b"")` again until it returns nothing.
    """

    __slots__ = (
        "_arguments", "_arguments_bytes", "_arguments_due", "_buffer", "_bulk_bytes", "_bytes_needed", "_idle",
        "_limits", "_position", "_searched_bytes", "authenticated", "error",
    )  # fmt: skip

    def __init__(self, limits: Limits) -> None:
        self.authenticated = True
        self.error: ProtocolError | None = None
        self._limits = limits
        self._idle = True  # nothing is pending and nothing has failed
        self._release()

    def _release(self) -> None:
        self._buffer = bytearray()  # received and not yet parsed; all before _position is done with
        self._position = 0
        self._searched_bytes = 0  # of the line at _position, known to hold no line end
        self._bytes_needed = 0  # nothing can be done while the buffer holds fewer
        self._bulk_bytes = -1  # length of the announced argument, -1 before its header
        self._arguments: list[bytes] = []  # of the unfinished command
        self._arguments_bytes = 0
        self._arguments_due = 0

    @property
    def buffered_bytes(self) -> int:
        """Bytes held for an unfinished command, counted as Redis does: unparsed ones plus collected arguments."""
        return len(self._buffer) + self._arguments_bytes

    def feed(self, data: bytes) -> list[list[bytes]]:
        """Take a received chunk and return the commands it completes, in order, none of them empty."""
        if self._idle and self.authenticated and data[:1] == b"*" and len(data) <= self._limits.bulk_bytes_max:
            # Frames of the types ~ > | % = ( + can pass for a request: look closer where such a byte occurs at all.
            if not (
                126 in data or 62 in data or 124 in data or 37 in data or 61 in data or 40 in data or 43 in data
                or LONG_ARRAY(data)
            ):  # fmt: skip
                try:
                    _shared.feed(data)
                    first = _shared.gets()
                    if first.__class__ is list and first and not _shared.has_data():
                        b"".join(first)
                        return [first]
                    _shared.feed(SENTINEL)
                    replies: list[Any] = [first]
                    replies += iter(_shared.gets, END)
                    # Bytes at the top level and empty arrays fail `all`, every other foreign reply fails `join`.
                    if replies.pop() == b"" and all(replies):
                        b"".join(chain.from_iterable(replies))
                        return replies
                except UNREADABLE:
                    pass  # not only whole requests: read again below, with more care
                _shared.renew()
            commands, rest = _whole_frames(data, self._limits)
            self._feed_carefully(rest, commands)
            return commands
        commands = []
        self._feed_carefully(data, commands)
        return commands

    def _feed_carefully(self, data: bytes, commands: list[list[bytes]]) -> None:
        if self.error is not None:
            return
        self._buffer += data
        if len(self._buffer) < self._bytes_needed:
            self._settle()
            return
        # Behind a frame that was cut comes a chunk like any other, so only that one frame is parsed here.
        only_front = not self._idle and self.authenticated
        finished = self._parse(commands, only_front)
        if finished and self._buffer:
            rest = bytes(self._buffer)
            self._buffer.clear()
            self._idle = True
            commands += self.feed(rest)
        else:
            self._settle()

    def _settle(self) -> None:
        """After a feed: judge what is left, and give back all memory after an error."""
        if self.error is None and self.buffered_bytes > self._limits.query_buffer_bytes_max:
            self.error = ProtocolError(b"")
        if self.error is not None:
            self._release()
        self._idle = self.error is None and not self._buffer and not self._arguments_due

    def _parse(self, commands: list[list[bytes]], only_front: bool) -> bool:
        """Parse what is buffered, with `only_front` one frame at most; true when that frame was complete."""
        buffer = self._buffer
        self._bytes_needed = 0
        finished = False
        try:
            while not finished and self._position < len(buffer):
                in_array = self._arguments_due or buffer[self._position] == ASTERISK
                command = self._array() if in_array else self._inline()
                if command is None:
                    break
                if command:
                    commands.append(command)
                finished = only_front
        except _Unauthenticated as error:
            if not commands:
                self.error = error
        except ProtocolError as error:
            self.error = error
        del buffer[: self._position]
        self._position = 0
        return finished

    def _array(self) -> list[bytes] | None:
        """The array of bulk strings at the front, empty for a count of 0 or less, or None while bytes are missing."""
        buffer, limits = self._buffer, self._limits
        if not self._arguments_due:
            end = self._header_end(b"too big mbulk count string")
            if end < 0:
                return None
            count = _integer(buffer[self._position + 1 : end])
            if count is None or count > limits.arguments_max:
                raise _protocol_error(b"invalid multibulk length")
            if count > ARGUMENTS_UNAUTHENTICATED and not self.authenticated:
                raise _Unauthenticated(b"ERR Protocol error: unauthenticated multibulk length")
            self._position = end + 2
            if count <= 0:
                return []
            self._arguments_due = count
        with memoryview(buffer) as received:
            while self._arguments_due:
                if self._bulk_bytes < 0 and not self._bulk_header():
                    return None
                start = self._position
                end = start + self._bulk_bytes
                if len(buffer) < end + 2:
                    self._bytes_needed = self._bulk_bytes + 2
                    return None
                self._arguments.append(bytes(received[start:end]))
                self._arguments_bytes += self._bulk_bytes
                self._arguments_due -= 1
                self._bulk_bytes = -1
                self._position = end + 2  # like Redis, without a look at the CRLF
        command, self._arguments, self._arguments_bytes = self._arguments, [], 0
        return command

    def _bulk_header(self) -> bool:
        end = self._header_end(b"too big bulk count string")
        if end < 0:
            return False
        first = self._buffer[self._position]
        if first != DOLLAR:
            shown = b" " if first in b"\r\n" else bytes([first])
            raise _protocol_error(b"expected '$', got '%b'" % shown)
        length = _integer(self._buffer[self._position + 1 : end])
        if length is None or not 0 <= length <= self._limits.bulk_bytes_max:
            raise _protocol_error(b"invalid bulk length")
        if length > BULK_BYTES_UNAUTHENTICATED and not self.authenticated:
            raise _Unauthenticated(b"ERR Protocol error: unauthenticated bulk length")
        self._bulk_bytes = length
        self._position = end + 2
        return True

    def _inline(self) -> list[bytes] | None:
        """The arguments of the inline line at the front, none if it is blank, or None while its end is missing."""
        end = self._line_end(LINE_FEED, b"too big inline request")
        if end < 0:
            return None
        line = bytes(self._buffer[self._position : end])
        self._position = end + 1
        return split_inline(line)

    def _header_end(self, too_long: bytes) -> int:
        """Where the length header at the front ends, -1 until that and one more byte are there (Redis: any byte)."""
        end = self._line_end(CARRIAGE_RETURN, too_long)
        return end if end + 1 < len(self._buffer) else -1

    def _line_end(self, terminator: int, too_long: bytes) -> int:
        """Where the line at the front ends, or -1; never searches a byte twice."""
        start, length_max = self._position, self._limits.inline_bytes_max
        end = self._buffer.find(terminator, start + self._searched_bytes, start + length_max + 1)
        if end >= 0:
            self._searched_bytes = 0
            return end
        self._searched_bytes = len(self._buffer) - start
        if self._searched_bytes > length_max:
            raise _protocol_error(too_long)
        return -1


def _whole_frames(data: bytes, limits: Limits) -> tuple[list[list[bytes]], bytes]:
    """Let hiredis parse a chunk, and keep what encodes back to the very bytes received; the rest is returned unread.

    A list is allocated for each length claimed, so claims must fit the chunk: every argument has 6 bytes or more, apart
    from those of one frame that is cut.
    """
    claims = [0, *map(int, ARRAY_CLAIMS(data))]
    longest_claim = max(claims)
    honest = (sum(claims) - longest_claim) * ARGUMENT_BYTES_MIN <= len(data) and longest_claim < 100_000
    if not honest or len(data) > limits.arguments_max * ARGUMENT_BYTES_MIN or any(long(data) for long in LONG_FOREIGN):
        return [], data
    reader = hiredis.Reader(notEnoughData=END)
    try:
        reader.feed(data)
        replies: list[Any] = list(iter(reader.gets, END))
        encoded = b"".join(hiredis.pack_command(tuple(reply)) for reply in replies)
    except UNREADABLE:
        return [], data
    if not data.startswith(encoded):
        return [], data
    return list(filter(None, replies)), data[len(encoded) :]


def split_inline(line: bytes) -> list[bytes]:
    """Split an inline request at white space, honouring quotes and escapes as `redis-cli` writes them.

    Control characters and hexadecimal bytes are escaped in double quotes, only the quote itself in single ones. Raises
    `ProtocolError` for a quote that is not closed, or is closed in the middle of a word.
    """
    words: list[bytes] = []
    position = 0
    while match := WORD(line, position):
        position = match.end()
        if line[position : position + 1] in (b'"', b"'"):
            raise _protocol_error(b"unbalanced quotes in request")
        bare, double, single = match.group("bare", "double", "single")
        if double is not None:
            words.append(bare + ESCAPE.sub(_unescape, double))
        elif single is not None:
            words.append(bare + single.replace(b"\\'", b"'"))
        else:
            words.append(bare)
    return words


def _unescape(match: re.Match[bytes]) -> bytes:
    hexadecimal, letter = match.groups()
    if hexadecimal is not None:
        return bytes.fromhex(hexadecimal.decode("ascii"))
    return CONTROLS.get(letter, letter)


def _integer(text: bytes | bytearray) -> int | None:
    """A length as Redis writes it (no sign +, no leading zero, 64 bits), or None."""
    if INTEGER(text) is None or (value := int(text)) not in INT64:
        return None
    return value


def _protocol_error(reason: bytes) -> ProtocolError:
    return ProtocolError(b"ERR Protocol error: " + reason)
