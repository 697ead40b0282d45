"""The shape of an answer: bindings (`x = 5`), tuples, sets, lists, intervals and inequalities.

A cleaned text becomes a small tree whose leaves are single values. Text is never evaluated here.
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache

_MAX_DEPTH = 4
_MAX_PARTS = 64
_OPENING, _CLOSING = "([{", ")]}"

_NAME = (
    r"(?:m\s*)?(?:\\?[A-Za-z]+|\\(?:angle|triangle)\s*[A-Z]{1,3})"
    r"(?:_[A-Za-z0-9]|_\{[A-Za-z0-9]{1,6}\})?'?(?:\([a-zA-Z]\))?"
)
_BINDING = re.compile(rf"({_NAME})\s*=\s*([^<>=]+(?:=[^<>=]+)*)$")
_JOINT = re.compile(r"\s*(?:,?\s(?:and|or)\s|[和或]|\\cup\b)\s*")
_OR_JOINT = re.compile(r"\sor\s|或|\\cup\b")
_THOUSANDS = re.compile(r"(?<![0-9,.])([0-9]{1,3}(?:,[0-9]{3})+)(?!,?[0-9])")
_ENUMERATION = re.compile(r"\(([1-9])\)\s*")
_RELATION = re.compile(r"(<|>|\\le\b|\\ge\b)")
_BOUNDS = {"<": "(", ">": "(", r"\le": "[", r"\ge": "["}
_CLOSE_BOUND = {"(": ")", "[": "]"}


@dataclass(frozen=True, slots=True)
class Value:
    r"""A leaf (`items` empty) or a list of values.

    `brackets` are the outer pair as written, "" for a bare list; `is_ordered` is False for sets, `\pm`,
    unions and alternatives joined by "or". `label` is the name the value is bound to.
    """

    text: str
    label: str = ""
    brackets: str = ""
    is_ordered: bool = True
    items: tuple["Value", ...] = ()


@lru_cache(maxsize=8192)
def read_value(text: str) -> Value:
    return _read(text, 0)


def _read(text: str, depth: int) -> Value:
    text = (text.strip(" .;,") if depth else text).replace(r"+\infty", r"\infty")
    if depth >= _MAX_DEPTH:
        return Value(text)
    enumerated = _enumerated(text)
    if enumerated:
        return _collect(text, enumerated, depth)
    if text.startswith(r"\pm") and len(text) > 3:
        size = text[3:].strip()
        return Value(text, is_ordered=False, items=(Value(size), Value(f"-{size}")))
    parts = _split(text)
    if len(parts) > 1:
        return _collect(text, parts, depth, is_ordered=not _OR_JOINT.search(text))
    binding = _BINDING.fullmatch(text)
    if binding:
        inner = _read(binding[2].rpartition("=")[2], depth + 1)
        return replace(inner, label=_label(binding[1]))
    if _RELATION.search(text):
        return _interval(text) or Value(text)
    return _bracketed(text, depth) or Value(text)


def _collect(text: str, parts: list[str], depth: int, *, brackets: str = "", is_ordered: bool = True) -> Value:
    if len(parts) == 1:
        return _read(parts[0], depth + 1)
    items = tuple(_read(part, depth + 1) for part in parts)
    labels = [item.label for item in items]
    label = ""
    if labels[0] and len(set(labels) - {""}) == 1:  # `n = 1, 2, 3`, or one name bound to every alternative
        label, items = labels[0], tuple(replace(item, label="") for item in items)
    return Value(text, label=label, brackets=brackets, is_ordered=is_ordered, items=items)


def _bracketed(text: str, depth: int) -> Value | None:
    inside = text.replace(r"\{", "{").replace(r"\}", "}")
    if len(inside) < 2 or inside[0] not in _OPENING or inside[-1] not in _CLOSING or not _closes_at_end(inside):
        return None
    brackets = inside[0] + inside[-1]
    parts = _split(inside[1:-1], is_bracketed=True)
    return _collect(text, parts, depth, brackets=brackets, is_ordered=brackets != "{}")


def _closes_at_end(text: str) -> bool:
    level = 0
    for index, character in enumerate(text):
        level += (character in _OPENING) - (character in _CLOSING)
        if level == 0:
            return index == len(text) - 1
    return False


def _split(text: str, *, is_bracketed: bool = False) -> list[str]:
    """Parts between separators outside brackets; commas inside thousands groups do not separate."""
    if not is_bracketed or ", " in text:
        text = _THOUSANDS.sub(lambda match: match[1].replace(",", "\x00"), text)
    text = _JOINT.sub(",", text)
    separator = ";" if ";" in text else ","
    parts, level, start = [], 0, 0
    for index, character in enumerate(text):
        level += (character in _OPENING) - (character in _CLOSING)
        if character == separator and level <= 0:
            parts.append(text[start:index])
            start = index + 1
    parts = [part.replace("\x00", ",").strip() for part in (*parts, text[start:])]
    parts = [part for part in parts if part]
    return parts if 1 <= len(parts) <= _MAX_PARTS else [text.replace("\x00", ",")]


def _enumerated(text: str) -> list[str] | None:
    """`(1) 5 (2) 7` → its answers, when the marks count up from one and each has an answer."""
    if not text.startswith("(1)"):
        return None
    _, *pieces = _ENUMERATION.split(text)
    marks, answers = pieces[0::2], [answer.strip(" ;,.") for answer in pieces[1::2]]
    is_counting = marks == [str(number) for number in range(1, len(marks) + 1)]
    return answers if is_counting and all(answers) else None


def _label(name: str) -> str:
    return re.sub(r"\s+|\\angle|\\triangle|[{}]|^m(?=\\)", "", name)


def _interval(text: str) -> Value | None:
    r"""`x > 3`, `3 < x` and `1 \le x < 2` as intervals labelled with the variable."""
    pieces = [piece.strip() for piece in _RELATION.split(text)]
    if len(pieces) == 3:
        left, relation, right = pieces
        if re.fullmatch(_NAME, right) and not re.fullmatch(_NAME, left):
            left, right, relation = right, left, _flipped(relation)
        if not re.fullmatch(_NAME, left):
            return None
        bound = _BOUNDS[relation]
        if relation in (">", r"\ge"):
            return _interval_value(text, left, bound, right, r"\infty", ")")
        return _interval_value(text, left, "(", r"-\infty", right, _CLOSE_BOUND[bound])
    if len(pieces) != 5 or not re.fullmatch(_NAME, pieces[2]):
        return None
    low, first, name, second, high = pieces
    if first in (">", r"\ge") and second in (">", r"\ge"):
        low, first, second, high = high, _flipped(second), _flipped(first), low
    if first not in ("<", r"\le") or second not in ("<", r"\le"):
        return None
    return _interval_value(text, name, _BOUNDS[first], low, high, _CLOSE_BOUND[_BOUNDS[second]])


def _interval_value(text: str, name: str, opening: str, low: str, high: str, closing: str) -> Value:
    return Value(text, label=_label(name), brackets=opening + closing, items=(Value(low), Value(high)))


def _flipped(relation: str) -> str:
    return {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}[relation]
