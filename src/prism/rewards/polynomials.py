"""Polynomials with rational coefficients, whose symbols are variables, π, e, i and square roots of primes.

√p · √p is p and i · i is -1, so a number has one form only: roots of different primes are linearly
independent over the rationals, and π is transcendental.
"""

from decimal import Context, Decimal, localcontext
from fractions import Fraction

PI = r"\pi"
_PI_DIGITS = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
_DIGITS = 60

Monomial = tuple[tuple[str, int], ...]
"""Symbols with their powers, sorted; () is the constant term."""
Polynomial = dict[Monomial, Fraction]


class NoValueError(ValueError):
    """Asked for the number that a polynomial with variables would be."""


def constant(value: Fraction | int) -> Polynomial:
    return {(): Fraction(value)} if value else {}


def add(first: Polynomial, second: Polynomial) -> Polynomial:
    total = dict(first)
    for monomial, coefficient in second.items():
        total[monomial] = total.get(monomial, Fraction(0)) + coefficient
    return {monomial: coefficient for monomial, coefficient in total.items() if coefficient}


def multiply(first: Polynomial, second: Polynomial) -> Polynomial:
    total: Polynomial = {}
    for left, left_coefficient in first.items():
        for right, right_coefficient in second.items():
            monomial, factor = _product(left, right)
            total[monomial] = total.get(monomial, Fraction(0)) + left_coefficient * right_coefficient * factor
    return {monomial: coefficient for monomial, coefficient in total.items() if coefficient}


def _product(left: Monomial, right: Monomial) -> tuple[Monomial, int]:
    """The product of two monomials and the integer that squares of roots and of i turn into."""
    if not left or not right:
        return left or right, 1
    powers, factor = dict(left), 1
    for symbol, power in right:
        power += powers.get(symbol, 0)
        square = -1 if symbol == "i" else int(symbol[1:]) if symbol[0] == "√" else None
        if square is not None:  # such a symbol stands in a monomial once or not at all
            factor *= square ** (power // 2)
            power %= 2
        powers[symbol] = power
    return tuple(sorted((symbol, power) for symbol, power in powers.items() if power)), factor


def square_root(value: Fraction) -> Polynomial:
    """Of a number that is not negative. Takes time like the square root of numerator times denominator."""
    radicand = value.numerator * value.denominator
    outside, primes, divisor = 1, [], 2
    while divisor * divisor <= radicand:
        while radicand % divisor**2 == 0:
            radicand //= divisor**2
            outside *= divisor
        if radicand % divisor == 0:
            radicand //= divisor
            primes.append(divisor)
        divisor += 1
    primes += [radicand] if radicand > 1 else []
    coefficient = Fraction(outside, value.denominator)
    return {tuple(sorted((f"√{prime}", 1) for prime in primes)): coefficient} if value else {}


def is_constant(symbol: str) -> bool:
    return symbol in (PI, "e", "i") or symbol[0] == "√"


def to_decimal(polynomial: Polynomial) -> Decimal:
    """The value to about sixty digits. Raises NoValueError if there is a variable or i."""
    with localcontext(Context(prec=_DIGITS)):
        return sum((_term_value(monomial) * _quotient(value) for monomial, value in polynomial.items()), Decimal(0))


def _quotient(value: Fraction) -> Decimal:
    return Decimal(value.numerator) / value.denominator


def _term_value(monomial: Monomial) -> Decimal:
    product = Decimal(1)
    for symbol, power in monomial:
        if symbol == "i" or not is_constant(symbol):
            raise NoValueError(symbol)
        base = _PI_DIGITS if symbol == PI else Decimal(1).exp() if symbol == "e" else Decimal(symbol[1:]).sqrt()
        product *= base**power
    return product
