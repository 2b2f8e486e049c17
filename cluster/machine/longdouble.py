"""The arithmetic of INCRBYFLOAT: x86's 80-bit long double, done with whole numbers.

Redis reads both numbers with ``strtold``, adds them with a mantissa of 64 bits
and prints ``%.17Lf`` without trailing zeros. Clients see those roundings, and
replicas on other processors must come to the same bytes, so nothing here uses
the machine's own floating point. Every rounding is to the nearest, the even
one of two.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple, TypeAlias

MANTISSA_BITS = 64
EXPONENT_MIN = -16445  # of the last mantissa bit of the smallest (denormal) number
LIMIT_BITS = 16384  # 2 to the power of it is infinite
DECIMALS = 17
TEXT_BYTES_MAX = 5 * 1024 - 1  # Redis copies the text into a buffer of this size


class Finite(NamedTuple):
    """The number ``mantissa * 2**exponent``."""

    mantissa: int
    exponent: int


LongDouble: TypeAlias = "Finite | None"
"""None is any infinity."""

ZERO = Finite(0, 0)

_DECIMAL = re.compile(rb"([+-]?)(?=\.?\d)(\d*)\.?(\d*)(?:e([+-]?\d+))?\Z", re.IGNORECASE)
_HEX = re.compile(rb"([+-]?)0x(?=\.?[\da-f])([\da-f]*)\.?([\da-f]*)(?:p([+-]?\d+))?\Z", re.IGNORECASE)
_INFINITE = re.compile(rb"[+-]?inf(?:inity)?\Z", re.IGNORECASE)

_DIGITS_MAX = 4000  # what int() and str() take at once, whatever limit the interpreter was given
_EXPONENT_LIMIT = 30_000  # beyond it every number of a permitted length is out of range


def parse(text: bytes) -> LongDouble:
    """The number ``strtold`` reads in ``text``; `ValueError` for what Redis calls no valid float (nan, 1e9999, …)."""
    if len(text) > TEXT_BYTES_MAX:
        raise ValueError("too long")
    if found := _DECIMAL.match(text):
        sign, whole, part, power = found.groups()
        digits, base, power_of = _integer(whole + part), 10, _power(power) - len(part)
    elif found := _HEX.match(text):
        sign, whole, part, power = found.groups()
        digits, base, power_of = int(whole + part, 16), 2, _power(power) - 4 * len(part)
    elif _INFINITE.match(text):
        return None
    else:
        raise ValueError("not a number")
    if not digits:
        return ZERO
    number = _quotient(digits * base**power_of, 1) if power_of > 0 else _quotient(digits, base**-power_of)
    if number is None or not number.mantissa:
        raise ValueError("out of range")
    return Finite(-number.mantissa, number.exponent) if sign == b"-" else number


def _integer(digits: bytes) -> int:
    return int(digits) if len(digits) <= _DIGITS_MAX else int(Decimal(digits.decode()))


def _power(text: bytes | None) -> int:
    """An exponent, cut to where it makes no difference any more."""
    if not text:
        return 0
    digits = text.lstrip(b"+-0") or b"0"
    size = min(int(digits), _EXPONENT_LIMIT) if len(digits) < 7 else _EXPONENT_LIMIT
    return -size if text.startswith(b"-") else size


def _quotient(numerator: int, denominator: int) -> LongDouble:
    """The long double next to ``numerator / denominator``, both positive."""
    # With this exponent the mantissa has 64 bits, or 65: then the next one is right.
    exponent = numerator.bit_length() - denominator.bit_length() - MANTISSA_BITS
    if exponent < 0:
        numerator <<= -exponent
    else:
        denominator <<= exponent
    shift = max(numerator >> MANTISSA_BITS >= denominator, EXPONENT_MIN - exponent)
    denominator <<= shift
    exponent += shift
    mantissa, rest = divmod(numerator, denominator)
    mantissa += 2 * rest > denominator or (2 * rest == denominator and mantissa & 1)
    return Finite(mantissa, exponent) if mantissa.bit_length() + exponent <= LIMIT_BITS else None


def add(one: LongDouble, other: LongDouble) -> LongDouble:
    """The sum; None when it is infinite or no number."""
    if one is None or other is None:
        return None
    exponent = min(one.exponent, other.exponent)
    exact = (one.mantissa << one.exponent - exponent) + (other.mantissa << other.exponent - exponent)
    if not exact:
        return ZERO
    number = _quotient(abs(exact) << max(exponent, 0), 1 << max(-exponent, 0))
    return Finite(-number.mantissa, number.exponent) if number and exact < 0 else number


def text(number: Finite) -> bytes:
    """``number`` with up to 17 decimals, no trailing zeros and no minus before zero."""
    scaled = abs(number.mantissa) * 10**DECIMALS << max(number.exponent, 0)
    if number.exponent < 0:
        scaled = _shifted(scaled, -number.exponent)
    digits = (str(scaled) if scaled.bit_length() < 3 * _DIGITS_MAX else str(Decimal(scaled))).zfill(DECIMALS + 1)
    whole, part = digits[:-DECIMALS], digits[-DECIMALS:].rstrip("0")
    return f"{'-' if scaled and number.mantissa < 0 else ''}{whole}{'.' if part else ''}{part}".encode()


def _shifted(number: int, bits: int) -> int:
    """``number`` without its last bits, rounded."""
    kept = number >> bits
    rest, half = number - (kept << bits), 1 << bits - 1
    return kept + (rest > half or (rest == half and kept & 1))
