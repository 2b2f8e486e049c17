"""Hypothesis strategies for calls of the string and key commands, right and wrong ones.

Real time must not decide a reply, so what is generated keeps clear of it: spans
count in days or are refused, absolute times are long past or past the year
2090, and GT and LT never compare two spans given at different moments.
"""

from __future__ import annotations

from hypothesis import strategies as st

Call = list[bytes]
Calls = st.SearchStrategy[Call]
Word = st.SearchStrategy[bytes]

FAR_S = 4_000_000_000
"""No span generated here reaches this Unix time, no absolute time that is not past is below it."""


def _words(*words: str) -> Word:
    return st.sampled_from([word.encode("latin-1") for word in words])


def _number(low: int, high: int) -> Word:
    return st.integers(low, high).map(lambda number: b"%d" % number)


KEYS = _words("a", "b", "c", "key:1", "key:2", "", "\x00\xff", "[x]")

EDGES = _words(
    "0", "1", "-1", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "-9223372036854775809",
    "9223372036854775806", "18446744073709551615", "", "-", "+1", "-0", "00", "01", " 1", "1 ", "1.0", "1e3", "x",
    "1\x00", "99999999999999999999999", "2147483648", "-2147483649",
)  # fmt: skip
INTEGERS = st.one_of(_number(-20, 20), EDGES)

FLOATS = st.one_of(
    _words(
        "0", "-0", "0.1", "0.2", "1.5", "-1.5", "3.0e3", "5.", ".5", ".", "", "+1", "1e", "1e+", "0x1p-3", "0X.8P4",
        "0x", "0x.", "0xAp", "inf", "-INF", "Infinity", "infinit", "nan", "nan(1)", " 1", "1 ", "1\n", "1\x00", "1,5",
        "1e4932", "-1.18973149535723176502e4932", "1.18973149535723176509e+4932", "1e4933", "1e99999999999999999999",
        "1e-4950", "3.6e-4951", "1.8e-4951", "1e-4952", "0e99999999999999999999", "1e-99999999999999999999", "1_0",
        "0x1p16383", "0x1p16384", "0x1p-16445", "0x1p-16446", "0x1.8p-16446", "0.000000000000000005", "1e-17",
        "0.000000000000000015", "18446744073709551615.5", "18446744073709551616.5", "9007199254740993", "1e17",
    ),
    st.floats(allow_nan=False, allow_infinity=False, width=64).map(lambda number: repr(number).encode()),
    st.from_regex(rb"\A[+-]?[0-9]{1,25}(\.[0-9]{0,25})?(e[+-]?[0-9]{1,4})?\Z"),
    st.from_regex(rb"\A[+-]?0x[0-9a-f]{1,20}(\.[0-9a-f]{0,20})?(p[+-]?[0-9]{1,5})?\Z"),
    st.decimals(allow_nan=False, allow_infinity=False, places=20).map(lambda number: str(number).encode()),
    INTEGERS,
)  # fmt: skip

VALUES = st.one_of(
    INTEGERS, FLOATS, st.binary(max_size=12), _words("hello world", "a" * 44, "b" * 45, "ohmytext", "mynewtext")
)
TEXTS = st.one_of(VALUES, st.text("abc", max_size=40).map(str.encode))
"""Over few letters, so that there is something in common."""

PATTERNS = st.one_of(
    _words(
        "*", "**", "?", "key:*", "*1", "*:*", "[a-c]", "[^a]", "\\[x\\]", "[[]x]", "", "*?", "?*", "[", "[^", "[]",
        "[^]", "[a-", "[a-]", "[z-a]", "\\", "a\\", "[\\a-b]", "[\x01-\xff]", "[\\", "*\\", "[^]*",
    ),
    st.text("abk*?[]^-\\:1", max_size=8).map(str.encode),
)  # fmt: skip

# Times

_BAD_TIMES = _words(
    "0", "-1", "-1000", "9223372036854775807", "-9223372036854775808", "9223372036854775", "9223372036854776",
    "-9223372036854776", "-9223372036854775", "9223372036854774", "1.5", "x", "", "-0",
)  # fmt: skip
_SPANS_S = _number(100_000, 1_000_000_000)
_SPANS_MS = _number(100_000_000, 1_000_000_000_000)
_PAST = _words("1", "1000000000", "1500000000")
_FAR_S = st.one_of(_number(FAR_S, FAR_S + 5), _words("9000000000000000"))
_FAR_MS = st.one_of(
    _number(FAR_S * 1000, FAR_S * 1000 + 5),
    _number(FAR_S * 1000 + 498, FAR_S * 1000 + 502),
    _words("9000000000000000500"),
)


def _times(absolute: bool, milliseconds: bool) -> Word:
    if not absolute:
        return st.one_of(_BAD_TIMES, _SPANS_MS if milliseconds else _SPANS_S)
    far = _FAR_MS if milliseconds else _FAR_S
    # The largest number is refused in seconds, and in milliseconds it is a deadline like others.
    return st.one_of(_BAD_TIMES, _PAST, far)


def _call(name: str, *words: Word) -> Calls:
    return st.tuples(_spelled(name), *words).map(list)


def _spelled(name: str) -> Word:
    return _words(name, name, name, name.lower(), name.capitalize())


def _options(*options: Calls) -> Calls:
    """Some of the options in any order, now and then one twice or two that exclude each other."""
    return st.lists(st.one_of(*options), max_size=3).map(lambda some: [word for option in some for word in option])


def _option(name: str, *values: Word) -> Calls:
    return _call(name, *values)


def _with(call: Calls, options: Calls) -> Calls:
    return st.builds(list.__add__, call, options)


_LIVES = (
    _option("EX", _times(False, False)),
    _option("PX", _times(False, True)),
    _option("EXAT", _times(True, False)),
    _option("PXAT", _times(True, True)),
)
_WRONG = st.one_of(_option("FOO"), _option("EX"), st.just([b""]))


# Calls

READS = st.one_of(
    _call("GET", KEYS),
    _call("STRLEN", KEYS),
    _call("GETRANGE", KEYS, INTEGERS, INTEGERS),
    _call("SUBSTR", KEYS, INTEGERS, INTEGERS),
    _with(_call("MGET", KEYS), st.lists(KEYS, max_size=3)),
    _with(
        _call("LCS", KEYS, KEYS),
        _options(_option("LEN"), _option("IDX"), _option("WITHMATCHLEN"), _option("MINMATCHLEN", INTEGERS), _WRONG),
    ),
)

SETS = st.one_of(
    _call("SET", KEYS, TEXTS),
    _with(
        _call("SET", KEYS, VALUES),
        _options(*_LIVES, _option("NX"), _option("XX"), _option("GET"), _option("KEEPTTL"), _option("PERSIST"), _WRONG),
    ),
    _call("SETEX", KEYS, _times(False, False), VALUES),
    _call("PSETEX", KEYS, _times(False, True), VALUES),
    _call("SETNX", KEYS, VALUES),
    _call("GETSET", KEYS, VALUES),
    _call("GETDEL", KEYS),
    _with(_call("GETEX", KEYS), _options(*_LIVES, _option("PERSIST"), _option("KEEPTTL"), _option("NX"), _WRONG)),
    _with(_call("MSET", KEYS, VALUES), st.lists(st.one_of(KEYS, VALUES), max_size=4)),
    _with(_call("MSETNX", KEYS, VALUES), st.lists(st.one_of(KEYS, VALUES), max_size=4)),
)

CHANGES = st.one_of(
    _call("APPEND", KEYS, VALUES),
    _call(
        "SETRANGE",
        KEYS,
        st.one_of(_number(0, 30), EDGES, _words("536870912", "536870911")),
        _words("", "", "xy", "zzz"),
    ),
    _call("INCR", KEYS),
    _call("DECR", KEYS),
    _call("INCRBY", KEYS, INTEGERS),
    _call("DECRBY", KEYS, INTEGERS),
    _call("INCRBYFLOAT", KEYS, FLOATS),
)

_CONDITIONS = _options(_option("NX"), _option("XX"))
_ALL_CONDITIONS = _options(_option("NX"), _option("XX"), _option("GT"), _option("LT"), st.just([b"fo\r\no"]))

DEADLINES = st.one_of(
    _with(_call("EXPIRE", KEYS, _times(False, False)), _CONDITIONS),
    _with(_call("PEXPIRE", KEYS, _times(False, True)), _CONDITIONS),
    _with(_call("EXPIRE", KEYS, _BAD_TIMES), _ALL_CONDITIONS),
    _with(_call("PEXPIRE", KEYS, _BAD_TIMES.filter(lambda time: not time.startswith(b"9"))), _ALL_CONDITIONS),
    _with(_call("EXPIREAT", KEYS, _times(True, False)), _ALL_CONDITIONS),
    _with(_call("PEXPIREAT", KEYS, _times(True, True)), _ALL_CONDITIONS),
    _call("PERSIST", KEYS),
    _call("TTL", KEYS),
    _call("PTTL", KEYS),
    _call("EXPIRETIME", KEYS),
    _call("PEXPIRETIME", KEYS),
)

_DATABASES = st.one_of(_words("0", "0", "16", "-1"), EDGES.filter(lambda number: number != b"1"))
_BAD_COUNTS = _words("0", "-1", "x", "", "9223372036854775808")

NAMES = st.one_of(
    _with(_call("DEL", KEYS), st.lists(KEYS, max_size=2)),
    _with(_call("UNLINK", KEYS), st.lists(KEYS, max_size=2)),
    _with(_call("EXISTS", KEYS), st.lists(KEYS, max_size=3)),
    _with(_call("TOUCH", KEYS), st.lists(KEYS, max_size=3)),
    _call("TYPE", KEYS),
    _call("KEYS", PATTERNS),
    _call("RENAME", KEYS, KEYS),
    _call("RENAMENX", KEYS, KEYS),
    _with(
        _call("COPY", KEYS, KEYS),
        _options(_option("REPLACE"), _option("DB", _DATABASES), _WRONG),
    ),
    _call("DBSIZE"),
    _with(_call("FLUSHALL"), _options(_option("SYNC"), _option("ASYNC"), _WRONG)),
    _with(_call("FLUSHDB"), _options(_option("SYNC"), _option("ASYNC"), _WRONG)),
    st.tuples(_words("OBJECT"), _words("FREQ", "freq"), KEYS).map(list),
    st.tuples(_words("SCAN"), _words("x", "-1", "18446744073709551616", "", "0x", "1 ", "-")).map(list),
    _with(_call("SCAN", _words("0")), _option("COUNT", _BAD_COUNTS)),
    st.tuples(_words("MEMORY"), _words("USAGE"), KEYS, _words("SAMPLES", "FOO"), _words("-1", "x", "")).map(list),
)  # fmt: skip

ANY = st.one_of(READS, SETS, SETS, CHANGES, CHANGES, DEADLINES, DEADLINES, NAMES)


@st.composite
def sequences(draw: st.DrawFn) -> list[Call]:
    """Up to 25 calls; some lack their last argument or have one too many."""
    calls = draw(st.lists(ANY, min_size=1, max_size=25))
    fault = draw(st.integers(0, 9))
    if fault == 0:
        calls.append(draw(ANY)[:-1] or [b"GET"])
    elif fault == 1:
        calls.append([*draw(ANY), b"more"])
    return calls
