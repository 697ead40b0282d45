r"""MathVision's published comparison of answers, as rules: strip the LaTeX, then compare as text, tuple or number.

Numbers count as the same when they round to the same two decimals, so 0.001 and 0.004 do. Only arithmetic
is read (fractions, roots, powers, π, percent, mixed numbers), by a small reader of its own: a response is
never executed, and what it cannot read is no number.
"""

import math
import re
from fractions import Fraction

Number = int | float

_MAX_CHARS = 200
_MAX_DEPTH = 30
_MAX_BITS = 2000
"""Of a power: what no float can hold needs not be read."""
_BEFORE_ROOTS = (
    (" ", ""), (r"\,", ""), ("∞", r"\infty"), (r"+\infty", r"\infty"), (r"\\", "\\"), ("\n", ""), (r"\text", ""),
    (r"\mbox", ""), ("bmatrix", "pmatrix"), (r"\left", ""), (r"\right", ""), (r"^{\circ}", ""), (r"^\circ", ""),
    ("{m}^3", ""), ("m^3", ""), ("{units}", ""), ("units", ""), ("{km}", ""), ("km", ""), (r"\!", ""), (r"\\", "\\"),
    ("tfrac", "frac"), ("dfrac", "frac"), (r"\$", ""), ("$", ""), (r"\%", ""), ("{.", "{0."),
)  # fmt: skip
"""In this order: later entries meet what earlier ones leave."""
_BARE_ROOT = re.compile(r"\\sqrt([^{\[])")
_BARE_FRACTION = re.compile(r"\\frac([^{])(?:([^{])|(?=\{))")
_RATIO = re.compile(r"(-?(?:0|[1-9]\d*))/(-?(?:0|[1-9]\d*))")
_LETTERS = "abcde"


def plain_answer(text: str) -> str:
    """The last boxed content of a text (or all of it) in lower case, right of its last equals sign, without LaTeX."""
    text = text.lower().replace("{}", "")
    start, end = text.find("oxed{"), text.rfind("}")
    if 0 <= start < end:
        text = text[start + len("oxed{") : end]
    closing, opening = text.find("}"), text.find("{")
    if closing >= 0 and not 0 <= opening < closing:
        text = text[:closing]
    text = text.rpartition("=")[2].rpartition(r"\approx")[2]
    for old, new in _BEFORE_ROOTS:
        text = text.replace(old, new)
    text = _canonical(f"0{text}" if text.startswith(".") else text)
    for letter in _LETTERS:
        text = text.replace(f"({letter})", letter)
    for letter in _LETTERS:
        text = text.replace(f"{{{letter}}}", letter)
    return text.rstrip(".").lstrip(":").strip()


def _canonical(text: str) -> str:
    if "sqrt" in text:
        text = _BARE_ROOT.sub(r"\\sqrt{\1}", text)
        text = _BARE_FRACTION.sub(lambda match: f"\\frac{{{match[1]}}}" + (f"{{{match[2]}}}" if match[2] else ""), text)
    ratio = _RATIO.fullmatch("1/2" if text == "0.5" else text)
    return f"\\frac{{{ratio[1]}}}{{{ratio[2]}}}" if ratio else text


def is_same_answer(answer: str, truth: str) -> bool:
    answer, truth = answer.lower(), truth.lower()
    if not answer.strip() or not truth.strip():
        return False
    if answer.strip() == truth.strip() or _rounded_tuple(answer) == _rounded_tuple(truth):
        return True
    first, second = rounded_value(answer), rounded_value(truth)
    return first is not None and first == second


def _rounded_tuple(text: str) -> str:
    """`(1.234,2)` as `(1.23,2)`; any other text, or one with a part that is no number, as it is."""
    parts = text[1:-1].split(",")
    if len(parts) < 2 or (text[0], text[-1]) not in (("(", ")"), ("[", "]")):
        return text
    rounded = [part if "infty" in part or part in ("a", "-a") else rounded_value(part) for part in parts]
    return text if None in rounded else text[0] + ",".join(map(str, rounded)) + text[-1]


def rounded_value(text: str) -> Number | None:
    """The value of an arithmetic expression, to two decimals; None where the text is not one."""
    try:
        value = _Reader(text).value()
        approximate = float(value)
    except (_UnreadableError, ArithmeticError):
        return None
    if isinstance(value, Fraction) and value.denominator == 1:
        return int(value)
    return round(approximate, 2) if math.isfinite(approximate) else None


class _UnreadableError(Exception):
    """The text is not arithmetic."""


_TOKEN = re.compile(r"\s*(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+|\\[a-z]+|\\?%|[-+*/:^()\[\]{}π])", re.ASCII)
_TIMES = ("*", r"\cdot", r"\times")
_OVER = ("/", ":", r"\div")
_CLOSING = {"(": ")", "{": "}", "[": "]"}


class _Reader:
    """Recursive descent; exact in fractions for as long as no decimal, root or π comes in."""

    def __init__(self, text: str) -> None:
        if len(text) > _MAX_CHARS or re.fullmatch(r"\{[^{}]*\}", text.strip()):  # braces alone make a set
            raise _UnreadableError
        self._tokens: list[str] = []
        position = 0
        while position < len(text):
            token = _TOKEN.match(text, position)
            if token is None:
                raise _UnreadableError
            self._tokens.append(token[1])
            position = token.end()
        self._tokens.reverse()
        self._depth = 0

    def value(self) -> Fraction | float:
        value = self._sum()
        if self._tokens:
            raise _UnreadableError
        return value

    def _sum(self) -> Fraction | float:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _UnreadableError
        value = self._product()
        while self._next() in ("+", "-"):
            value = value + self._product() if self._tokens.pop() == "+" else value - self._product()
        self._depth -= 1
        return value

    def _product(self) -> Fraction | float:
        value = self._signed()
        while self._next() in (*_TIMES, *_OVER):
            value = value * self._signed() if self._tokens.pop() in _TIMES else value / self._signed()
        return value

    def _signed(self) -> Fraction | float:
        sign = 1
        while self._next() in ("+", "-"):
            sign = -sign if self._tokens.pop() == "-" else sign
        return sign * self._factors()

    def _factors(self) -> Fraction | float:
        """Factors without a sign between them; a whole number before a fraction is a mixed number."""
        is_whole = self._next().isdigit()
        value = self._power()
        if is_whole and self._next() == r"\frac":
            value += self._power()
        while self._next() in (r"\frac", r"\sqrt", r"\pi", "π", "(", "{") or self._next()[:1].isdigit():
            value *= self._power()
        return value

    def _power(self) -> Fraction | float:
        value = self._atom()
        while self._next() in ("^", "%", r"\%"):
            value = _raised(value, self._atom()) if self._tokens.pop() == "^" else value / 100
        return value

    def _atom(self) -> Fraction | float:
        token = self._pop()
        if token in ("(", "{"):
            return self._until(_CLOSING[token])
        if token in (r"\pi", "π"):
            return math.pi
        if token == r"\frac":
            return self._group() / self._group()
        if token == r"\sqrt":
            degree = self._until("]") if self._next() == "[" and self._pop() else Fraction(2)
            return _raised(self._group(), 1 / degree)
        if not token[-1].isdigit():
            raise _UnreadableError
        digits = token.replace(",", "")
        return Fraction(digits) if digits.isdigit() else float(digits)

    def _group(self) -> Fraction | float:
        if self._pop() != "{":
            raise _UnreadableError
        return self._until("}")

    def _until(self, closing: str) -> Fraction | float:
        value = self._sum()
        if self._pop() != closing:
            raise _UnreadableError
        return value

    def _next(self) -> str:
        return self._tokens[-1] if self._tokens else ""

    def _pop(self) -> str:
        if not self._tokens:
            raise _UnreadableError
        return self._tokens.pop()


def _raised(base: Fraction | float, exponent: Fraction | float) -> Fraction | float:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        if max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent) > _MAX_BITS:
            raise _UnreadableError
        return base**exponent
    value = float(base) ** float(exponent)
    if isinstance(value, complex):
        raise _UnreadableError
    return value
