"""The process behind `prism.rewards.symbolic`: reads one JSON request a line, answers with one JSON line.

Run by path, never imported by the package, so that it loads nothing but math-verify. Its parent kills
it when it takes too long; an alarm ends it even if the parent died while sympy was busy.
"""

import contextlib
import json
import logging
import os
import signal
import sys
from fractions import Fraction
from typing import Any, TextIO

import sympy
from math_verify import LatexExtractionConfig, parse, verify
from math_verify.parser import NormalizationConfig

MEMORY_LIMIT_BYTES = 2**30
_DIGITS = 60
_AGREEMENT = sympy.Rational(1, 10**40)
"""Values that agree to 40 digits at every sample point are taken as equal."""
_POINTS = ((3, 7), (-5, 11), (13, 4), (-17, 9))
"""Fractions from which the values of the variables are made: both signs, above and below one."""
_MAX_SET = 16

_EXTRACTION = [
    LatexExtractionConfig(
        try_extract_without_anchor=True,
        normalization_config=NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none", equations=False
        ),
    )
]


def read_expression(latex: str) -> Any | None:
    """The sympy object for one LaTeX expression, None if math-verify cannot read it."""
    if "$" in latex:
        return None
    found = parse(f"${latex}$", _EXTRACTION, fallback_mode="no_fallback", parsing_timeout=0)
    return _exact(found[0]) if found else None


def _exact(expression: Any) -> Any:
    """Decimals as the fractions they were written as, to 15 digits."""
    return expression.xreplace({number: sympy.Rational(str(number)) for number in expression.atoms(sympy.Float)})


def is_equal(prediction: Any, ground_truth: Any, tolerance: Fraction) -> bool:
    """Exact equality of scalars, equations (up to a factor), matrices and collections.

    math-verify compares floats to six digits, so tiny numbers and distinct lines would agree; it decides
    here only for sets and relations.
    """
    if isinstance(prediction, sympy.Equality) or isinstance(ground_truth, sympy.Equality):
        return _is_same_equation(prediction, ground_truth)
    if isinstance(prediction, sympy.MatrixBase) and isinstance(ground_truth, sympy.MatrixBase):
        return prediction.shape == ground_truth.shape and all(
            is_equal(*pair, tolerance) for pair in zip(prediction.flat(), ground_truth.flat(), strict=True)
        )
    if isinstance(prediction, sympy.Tuple) and isinstance(ground_truth, sympy.Tuple):
        return len(prediction) == len(ground_truth) and all(
            is_equal(*pair, tolerance) for pair in zip(prediction, ground_truth, strict=True)
        )
    if isinstance(prediction, sympy.FiniteSet) and isinstance(ground_truth, sympy.FiniteSet):
        return _is_same_set(list(prediction.args), list(ground_truth.args), tolerance)
    if isinstance(prediction, sympy.Expr) and isinstance(ground_truth, sympy.Expr):
        return _is_same_scalar(prediction, ground_truth, tolerance)
    if isinstance(prediction, sympy.Expr) or isinstance(ground_truth, sympy.Expr):
        return False
    return bool(verify(ground_truth, prediction, strict=True, timeout_seconds=0))


def _is_same_set(first: list[Any], second: list[Any], tolerance: Fraction) -> bool:
    if len(first) != len(second) or len(first) > _MAX_SET:
        return False
    for item in first:
        match = next((candidate for candidate in second if is_equal(item, candidate, tolerance)), None)
        if match is None:
            return False
        second.remove(match)
    return True


def _is_same_scalar(prediction: Any, ground_truth: Any, tolerance: Fraction) -> bool:
    names = sorted(prediction.free_symbols | ground_truth.free_symbols, key=str)
    if not names and tolerance:
        limit = sympy.Rational(tolerance.numerator, tolerance.denominator)
        return bool(sympy.Abs(_value(prediction, {}) - _value(ground_truth, {})) <= limit)
    defined = 0
    for point in _points(names):
        first, second = _value(prediction, point), _value(ground_truth, point)
        if not (first.is_finite and second.is_finite):
            if bool(first.is_finite) != bool(second.is_finite):
                return False
            continue
        if not _agree(first, second):
            return False
        defined += 1
    return defined > 0


def _is_same_equation(prediction: Any, ground_truth: Any) -> bool:
    """Equations are the same when their differences of sides are proportional."""
    if not (isinstance(prediction, sympy.Equality) and isinstance(ground_truth, sympy.Equality)):
        return False
    sides = [_difference_of_sides(equation) for equation in (prediction, ground_truth)]
    if sides[0].free_symbols != sides[1].free_symbols:
        return False
    ratio = None
    for point in _points(sorted(sides[0].free_symbols, key=str)):
        first, second = (_value(side, point) for side in sides)
        if not (first.is_finite and second.is_finite) or second == 0 or first == 0:
            return False
        if ratio is not None and not _agree(ratio, first / second):
            return False
        ratio = first / second
    return ratio is not None


def _difference_of_sides(equation: Any) -> Any:
    return equation.lhs - equation.rhs


def _points(names: list[Any]) -> list[dict[Any, Any]]:
    """Values for the variables; the offset by index keeps them apart from one another. i is the imaginary unit."""
    variables = [name for name in names if name.name != "i"]
    constants = {name: sympy.I for name in names if name.name == "i"}
    offsets = {name: sympy.Rational(2 * index, 19) for index, name in enumerate(variables)}
    return [
        constants | {name: sympy.Rational(*point) + offset for name, offset in offsets.items()}
        for point in (_POINTS if variables else _POINTS[:1])
    ]


def _value(expression: Any, point: dict[Any, Any]) -> Any:
    value = expression.subs(point).doit().evalf(_DIGITS)
    if not value.is_number:
        raise ValueError("the expression has no numerical value")
    return value


def _agree(first: Any, second: Any) -> bool:
    difference, size = sympy.Abs(first - second), sympy.Abs(first) + sympy.Abs(second)
    return bool(difference <= _AGREEMENT * size) if size else True


def answer(request: dict[str, str]) -> dict[str, str]:
    """`result` is equal, different, unreadable_prediction, unreadable_ground_truth or error."""
    try:
        ground_truth = read_expression(request["ground_truth"])
        if ground_truth is None:
            return {"result": "unreadable_ground_truth"}
        prediction = read_expression(request["prediction"])
        if prediction is None:
            return {"result": "unreadable_prediction"}
        is_same = is_equal(prediction, ground_truth, Fraction(request["tolerance"]))
        return {"result": "equal" if is_same else "different"}
    except Exception as error:  # anything may come out of a parser and sympy; the parent counts it as unverifiable
        return {"result": "error", "detail": type(error).__name__}


def serve(requests: TextIO, replies: TextIO) -> None:
    print(json.dumps({"result": "ready"}), file=replies, flush=True)
    for line in requests:
        request = json.loads(line)
        if hasattr(signal, "alarm"):
            signal.alarm(int(float(request["timeout_seconds"])) + 5)
        print(json.dumps(answer(request)), file=replies, flush=True)
        if hasattr(signal, "alarm"):
            signal.alarm(0)


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # no such limit on this platform, or a lower one
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    _limit_memory()
    logging.disable(logging.CRITICAL)
    # Replies go to the original standard output; whatever a library prints must not get between them.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as reply_stream:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        serve(sys.stdin, reply_stream)
