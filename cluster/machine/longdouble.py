"""The arithmetic of INCRBYFLOAT: x86's 80-bit long double, done with exact numbers.

Redis reads both numbers with ``strtold``, adds them with a mantissa of 64 bits
and prints ``%.17Lf`` without trailing zeros. Clients see those roundings, and
replicas on other processors must come to the same bytes, so nothing here uses
the machine's own floating point.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import TypeAlias

MANTISSA_BITS = 64
EXPONENT_MIN = -16445  # of the last mantissa bit of the smallest (denormal) number
LIMIT = 1 << 16384
TEXT_BYTES_MAX = 5 * 1024 - 1  # Redis copies the text into a buffer of this size
DECIMALS = 17

LongDouble: TypeAlias = "Fraction | None"
"""A finite number, or None for an infinite one."""

_DECIMAL = re.compile(r"([+-]?)(?=\.?\d)(\d*\.?\d*)(?:e([+-]?\d+))?\Z", re.IGNORECASE | re.ASCII)
_HEX = re.compile(r"([+-]?)0x(?=\.?[\da-f])([\da-f]*)\.?([\da-f]*)(?:p([+-]?\d+))?\Z", re.IGNORECASE | re.ASCII)
_INFINITE = re.compile(r"[+-]?inf(?:inity)?\Z", re.IGNORECASE | re.ASCII)

_EXPONENT_LIMIT = 100_000  # beyond it every number of a permitted length is out of range


def parse(text: bytes) -> LongDouble:
    """The number ``strtold`` reads in ``text``; `ValueError` for what Redis calls no valid float (nan, 1e9999, …)."""
    if len(text) > TEXT_BYTES_MAX:
        raise ValueError("too long")
    word = text.decode("latin-1")
    if found := _DECIMAL.match(word):
        sign, digits, exponent = found.groups()
        exact = _decimal(digits, _exponent(exponent))
    elif found := _HEX.match(word):
        sign, whole, part, exponent = found.groups()
        exact = _binary(int(whole + part, 16), _exponent(exponent) - 4 * len(part))
    elif _INFINITE.match(word):
        return None
    else:
        raise ValueError("not a number")
    number = rounded(exact)
    if number is None or (exact and not number):
        raise ValueError("out of range")
    return -number if sign == "-" else number


def _exponent(text: str | None) -> int:
    """An exponent, cut to where it makes no difference any more."""
    if not text:
        return 0
    digits = text.lstrip("+-").lstrip("0") or "0"
    size = min(int(digits[:7]), _EXPONENT_LIMIT) if len(digits) <= 7 else _EXPONENT_LIMIT
    return -size if text[0] == "-" else size


def _decimal(digits: str, exponent: int) -> Fraction:
    mantissa = Decimal(digits)
    if not mantissa:
        return Fraction(0)
    if mantissa.adjusted() + exponent > 5000:
        return Fraction(LIMIT)
    if mantissa.adjusted() + exponent < -5000:
        return Fraction(1, LIMIT * LIMIT)
    return Fraction(Decimal(f"{digits}e{exponent}"))


def _binary(mantissa: int, exponent: int) -> Fraction:
    if exponent < 0:
        return Fraction(mantissa, 1 << -exponent)
    return Fraction(mantissa << exponent)


def rounded(exact: Fraction) -> LongDouble:
    """The long double next to ``exact``, the even one of two; None when that is infinite."""
    numerator, denominator = abs(exact.numerator), exact.denominator
    if not numerator:
        return exact
    # |exact| / 2**exponent is above 2**63 and below 2**65; one more halving may be needed.
    exponent = numerator.bit_length() - denominator.bit_length() - MANTISSA_BITS
    exponent += _binary(1, exponent + MANTISSA_BITS) * denominator <= numerator
    exponent = max(exponent, EXPONENT_MIN)
    number = round(exact * _binary(1, -exponent)) * _binary(1, exponent)
    return number if abs(number) < LIMIT else None


def add(one: LongDouble, other: LongDouble) -> LongDouble:
    """The sum; None when it is infinite or no number."""
    return None if one is None or other is None else rounded(one + other)


def text(number: Fraction) -> bytes:
    """``number`` with up to 17 decimals, no trailing zeros and no minus before zero."""
    scaled = round(number * 10**DECIMALS)
    digits = str(Decimal(abs(scaled))).zfill(DECIMALS + 1)
    whole, part = digits[:-DECIMALS], digits[-DECIMALS:].rstrip("0")
    return f"{'-' if scaled < 0 else ''}{whole}{'.' if part else ''}{part}".encode()
