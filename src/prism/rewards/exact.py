"""Exact arithmetic on simple formulas, so that most of them never reach computer algebra.

A formula is read as a quotient of polynomials (see `polynomials`); two formulas are equal exactly when the
cross products of their quotients are the same polynomial. Whatever is not of this kind (functions, symbols
in an exponent, roots of sums) is not read at all.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from prism.rewards.polynomials import (
    PI,
    NoValueError,
    Polynomial,
    add,
    constant,
    is_constant,
    multiply,
    square_root,
    to_decimal,
)

MAX_CHARS = 200
_MAX_POWER = 24
_MAX_DEPTH = 20
_MAX_BITS = 2000
_MAX_RADICAND = 10**6
_MAX_POWER_BASE = 10**15
_MAX_TERMS = 200
_MAX_PRODUCTS = 10_000
"""Products of terms in reading one formula."""
_LEAST_DIVISOR = Decimal("1e-40")

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,2}(?![0-9A-Za-z]))?)"
    r"|(?P<name>\\[A-Za-z]+|[A-Za-z](?:_[A-Za-z0-9]|_\{[A-Za-z0-9]{1,6}\})?)|(?P<mark>[-+*/^(){}\[\]=|]))"
)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_GREEK_NAMES = "alpha beta gamma delta epsilon theta lambda mu rho sigma tau phi varphi omega"
_GREEK = frozenset(f"\\{name}" for name in _GREEK_NAMES.split())
_TIMES, _DIVIDE = frozenset({r"\cdot", r"\times", "*"}), frozenset({"/", r"\div"})
_FUNCTION_NAMES = frozenset("fghFGP")
_CLOSING = {"(": ")", "[": "]", "{": "}"}


class Unreadable(Exception):
    """The formula is beyond this module."""


@dataclass(frozen=True, slots=True)
class Quotient:
    above: Polynomial
    below: Polynomial


def is_same_formula(first: str, second: str, tolerance: Fraction = Fraction(0)) -> bool | None:
    """Whether two LaTeX formulas or equations are equal; None if this module cannot tell.

    Equations are equal if one is a multiple of the other. Constants may differ by `tolerance`.
    """
    if max(len(first), len(second)) > MAX_CHARS or first.count("=") != second.count("=") or first.count("=") > 1:
        return None
    try:
        if "=" in first:
            return _is_multiple(_difference_of_sides(first), _difference_of_sides(second))
        left, right = read_formula(first), read_formula(second)
        if tolerance:
            return abs(_value(left) - _value(right)) <= tolerance
        return multiply(left.above, right.below) == multiply(right.above, left.below)
    except Unreadable:
        return None


def read_formula(text: str) -> Quotient:
    """Raises Unreadable."""
    return _Reader(text).read_all()


def _difference_of_sides(equation: str) -> Polynomial:
    """The numerator of left - right."""
    left, right = map(read_formula, equation.split("="))
    negative = multiply(right.above, constant(-1))
    return add(multiply(left.above, right.below), multiply(negative, left.below))


def _is_multiple(first: Polynomial, second: Polynomial) -> bool | None:
    if not first or not second:
        return not first and not second
    pivot = next(iter(second))
    factor = first.get(pivot, Fraction(0)) / second[pivot]
    if first == {monomial: factor * coefficient for monomial, coefficient in second.items()}:
        return True
    has_constants = any(is_constant(symbol) for monomial in (*first, *second) for symbol, _ in monomial)
    return None if has_constants else False  # they may differ by an irrational factor


def _value(quotient: Quotient) -> Fraction:
    """A constant's value to 40 digits. Raises Unreadable if there is a variable."""
    try:
        above, below = to_decimal(quotient.above), to_decimal(quotient.below)
    except NoValueError:
        raise Unreadable from None
    if abs(below) < _LEAST_DIVISOR:
        raise Unreadable
    return Fraction(above) / Fraction(below)


class _Reader:
    """Recursive descent over the tokens of one formula."""

    def __init__(self, text: str) -> None:
        if _WORD.search(text):
            raise Unreadable
        self._tokens = list(_tokens(text))
        self._position = 0
        self._depth = 0
        self._products = 0

    def read_all(self) -> Quotient:
        result = self._sum()
        if self._position < len(self._tokens):
            raise Unreadable
        return result

    def _peek(self, ahead: int = 0) -> str:
        place = self._position + ahead
        return self._tokens[place] if place < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._position += 1
        return token

    def _sum(self) -> Quotient:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise Unreadable
        sign = self._sign()
        total = self._times(self._term(), Quotient(constant(sign), constant(1)))
        while self._peek() in ("+", "-"):
            sign = self._sign()
            total = self._plus(total, self._term(), sign)
        self._depth -= 1
        return total

    def _sign(self) -> int:
        sign = 1
        while self._peek() in ("+", "-"):
            sign = -sign if self._next() == "-" else sign
        return sign

    def _term(self) -> Quotient:
        result, was_divided = self._power(), False
        while self._peek() and self._peek() not in ("+", "-", "=", *_CLOSING.values()):
            operator = self._next() if self._peek() in _TIMES | _DIVIDE else ""
            if not operator and (was_divided or self._peek()[0] in ".0123456789"):  # `1/2x`, `2 3`: several readings
                raise Unreadable
            sign = self._sign() if operator else 1
            factor = self._power()
            was_divided = operator in _DIVIDE
            if was_divided:
                factor = _inverse(factor)
            result = self._times(result, Quotient(multiply(factor.above, constant(sign)), factor.below))
        return result

    def _power(self) -> Quotient:
        base = self._base()
        if self._peek() != "^":
            return base
        self._next()
        exponent = self._group() if self._peek() == "{" else self._signed_base()
        value = _rational(exponent)
        if value.denominator == 2:
            base, value = _root(base, 2), value * 2
        if value.denominator != 1 or abs(value) > (_MAX_POWER if _has_symbols(base) else _MAX_BITS):
            raise Unreadable
        result = Quotient(constant(1), constant(1))
        for _ in range(abs(int(value))):
            result = self._times(result, base)
        return result if value >= 0 else _inverse(result)

    def _signed_base(self) -> Quotient:
        sign = self._sign()
        base = self._base()
        return Quotient(multiply(base.above, constant(sign)), base.below)

    def _base(self) -> Quotient:
        token = self._peek()
        if token[:1].isdigit() or token[:1] == ".":
            return self._number()
        if token in _CLOSING:
            return self._group()
        self._next()
        if token == r"\frac":
            return self._times(self._group(), _inverse(self._group()))
        if token == r"\sqrt":
            return self._square_or_other_root()
        is_variable = (len(token) == 1 and token.isalpha()) or token[1:2] == "_"
        is_applied = token in _FUNCTION_NAMES and self._peek() == "("
        if (is_variable and not is_applied) or token in _GREEK | {PI}:
            return Quotient(_symbol(token), constant(1))
        raise Unreadable

    def _number(self) -> Quotient:
        """A literal, or a mixed number such as `2\\frac{1}{3}`."""
        literal = self._next()
        value = Fraction(literal)
        if self._peek() == r"\frac" and literal.isdigit():
            self._next()
            value += _rational(self._times(self._group(), _inverse(self._group())))
        return Quotient(constant(value), constant(1))

    def _square_or_other_root(self) -> Quotient:
        degree = Fraction(2)
        if self._peek() == "[":
            degree = _rational(self._group())
        return _root(self._group() if self._peek() in _CLOSING else self._base(), degree)

    def _group(self) -> Quotient:
        closing = _CLOSING.get(self._next())
        inside = self._sum()
        if closing is None or self._next() != closing:
            raise Unreadable
        return inside

    def _plus(self, left: Quotient, right: Quotient, sign: int) -> Quotient:
        first = self._multiply(left.above, right.below)
        second = self._multiply(right.above, left.below)
        return Quotient(add(first, multiply(second, constant(sign))), self._multiply(left.below, right.below))

    def _times(self, left: Quotient, right: Quotient) -> Quotient:
        return Quotient(self._multiply(left.above, right.above), self._multiply(left.below, right.below))

    def _multiply(self, left: Polynomial, right: Polynomial) -> Polynomial:
        self._products += len(left) * len(right)
        if self._products > _MAX_PRODUCTS:
            raise Unreadable
        product = multiply(left, right)
        if len(product) > _MAX_TERMS or _num_bits(product.values()) > _MAX_BITS:
            raise Unreadable
        return product


def _tokens(text: str) -> Iterable[str]:
    place, text = 0, text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise Unreadable
        yield match.group(match.lastgroup or 0)
        place = match.end()


def _symbol(name: str) -> Polynomial:
    return {((name.replace("{", "").replace("}", ""), 1),): Fraction(1)}


def _has_symbols(quotient: Quotient) -> bool:
    return not set(quotient.above) | set(quotient.below) <= {()}


def _inverse(quotient: Quotient) -> Quotient:
    if not quotient.above:
        raise Unreadable
    return Quotient(quotient.below, quotient.above)


def _rational(quotient: Quotient) -> Fraction:
    """The value of a quotient without symbols; raises Unreadable for any other."""
    if _has_symbols(quotient):
        raise Unreadable
    return quotient.above.get((), Fraction(0)) / quotient.below[()]


def _root(radicand: Quotient, degree: Fraction | int) -> Quotient:
    """A square root of a rational, or another root if it is rational; odd roots keep the sign."""
    value = _rational(radicand)
    if degree == 2:
        if not 0 <= value.numerator * value.denominator <= _MAX_RADICAND:
            raise Unreadable
        return Quotient(square_root(value), constant(1))
    if degree.denominator != 1 or not 2 < degree <= _MAX_POWER or (value < 0 and degree % 2 == 0):
        raise Unreadable
    if max(abs(value.numerator), value.denominator) > _MAX_POWER_BASE:
        raise Unreadable
    parts = [round(part ** (1 / int(degree))) for part in (abs(value.numerator), value.denominator)]
    root = Fraction(parts[0] if value >= 0 else -parts[0], parts[1])
    if root ** int(degree) != value:
        raise Unreadable
    return Quotient(constant(root), constant(1))


def _num_bits(coefficients: Iterable[Fraction]) -> int:
    return max((max(value.numerator.bit_length(), value.denominator.bit_length()) for value in coefficients), default=0)
