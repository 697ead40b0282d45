"""The shape of an answer: bindings (`x = 5`), tuples, sets, lists, intervals and inequalities.

A cleaned text becomes a small tree whose leaves are single values. Text is never evaluated here.
"""

import re
from dataclasses import dataclass, replace

from prism.rewards.memory import Remembered

_MAX_DEPTH = 4
_MAX_PARTS = 64
_OPENING, _CLOSING = "([{", ")]}"

_FUNCTION = r"\\?(?:sin|cos|tan)\s*(?:\\angle\s*)?(?:[A-Z]{1,3}|\\[a-z]+|[a-z])"
_NAME = (
    r"(?:(?:m\s*)?\\(?:angle|triangle)\s*(?:[A-Z]{1,3}|[0-9])|[Aa]ngle\s[A-Z]{1,3}|\\(?:overline|vec|hat)\{[A-Za-z]{1,3}\}"
    rf"|\|[A-Z]{{2}}\||[A-Z]{{1,3}}:[A-Z]{{1,3}}|{_FUNCTION}|\\?[A-Za-z]+)"
    r"(?:_[A-Za-z0-9]|_\{[^{}]{1,20}\})?'?(?:\([A-Za-z0-9,+-]{1,8}\))?"
)
_BINDING = re.compile(rf"({_NAME})\s*(?:=|\\approx)\s*([^<>=]+(?:=[^<>=]+)*)$")
_WORKED_OUT = re.compile(
    rf"[-+0-9.()/*^{{}} ]*(?:\\(?:times|cdot|div)[-+0-9.()/*^{{}} ]*)*=(?!\s*{_NAME}$)\s*([^<>=]+)"
)
_COLON_BINDING = re.compile(r"([A-Z](?=:\s)|[A-Za-z][A-Za-z-]{2,}(?: [A-Za-z]+){0,3})\s*:\s*([^:]+)")
_MEMBERSHIP = re.compile(rf"({_NAME})\s*\\in(?![a-z])\s*(.+)")
_SET_BUILDER = re.compile(rf"\\?\{{\s*{_NAME}\s*(?:\\in\s*\\mathbb\{{R\}}\s*)?(?:\\mid|\||:)\s*(.+?)\s*\\?\}}")
_NAMES_TUPLE = re.compile(r"\(([a-z], ?[a-z](?:, ?[a-z])?)\) ?= ?(\(.+\))")
_POINT = re.compile(r"(?:(?:the )?[A-Za-z]{4,} |点)?([A-Z]'?)?\s*=?\s*(\(.+\))")
_SPACED_NUMBERS = re.compile(r"-?[0-9.]+(?: -?[0-9.]+){2,}")
_SPACED_THOUSANDS = re.compile(r"-?[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?")
_MATRIX = re.compile(
    r"\\begin\{(?:[pbB]?matrix|array\}\{[lcr]+)\}((?:(?!\\begin|\\end).)*)\\end\{(?:[pbB]?matrix|array)\}"
)
MATRIX = "matrix"
_REAL_NUMBERS = frozenset((r"\mathbb{R}", "all real numbers", "R", "实数", "全体实数", "一切实数"))
_JOINT = re.compile(r"\s*(?:,?\s(?:and|or|&)\s|[和或且]|\\cup\b)\s*")
_AND_JOINT = re.compile(r"\s(?:and|&)\s|且")
_OR_JOINT = re.compile(r"\sor\s|或|\\cup\b")
_THOUSANDS = re.compile(r"(?<![0-9,.])([0-9]{1,3}(?:,[0-9]{3})+)(?!,?[0-9])")
_MARK = re.compile(r"(?:(?<![^\s;,.])|(?<=\)))(?:\(([1-9]|[a-e]|i{1,3}|iv|v)\)|([1-9]|[a-e])\))\s*")
_MARK_SEQUENCES = tuple(tuple(marks.split()) for marks in ("1 2 3 4 5 6 7 8 9", "a b c d e", "i ii iii iv v"))
_RATIO = re.compile(r"\s*(?::|\bto\b|比)\s*")
_WORDED_RATIO = re.compile(r"[0-9] to [0-9]|比")
# What each pattern that binds a value to a name, or relates it, has at least one of.
_ANY_SIGN = re.compile(r"[=:<>(\\]")
_RELATION = re.compile(r"(<|>|\\le\b|\\ge\b|\\ne\b)")
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


@Remembered
def read_value(text: str) -> Value:
    return _read(text, 0)


def _read(text: str, depth: int) -> Value:
    text = (text.strip(" .;,") if depth else text).replace(r"+\infty", r"\infty")
    if depth >= _MAX_DEPTH:
        return Value(text)
    if text in _REAL_NUMBERS:
        return _interval_value(text, "", "(", r"-\infty", r"\infty", ")")
    set_builder = _SET_BUILDER.fullmatch(text)
    if set_builder:
        return _read(set_builder[1], depth + 1)
    enumerated = _enumerated(text, depth)
    if enumerated:
        return enumerated
    parts = _split(text)
    if len(parts) > 1:
        has_and = _AND_JOINT.search(text) is not None
        is_enumeration = has_and and all(part.replace(" ", "").isalpha() for part in parts)
        value = _collect(text, parts, depth, is_ordered=not is_enumeration and not _OR_JOINT.search(text))
        return (_intersection(value) if has_and else None) or value
    return _matrix(text) or _bound(text, depth) or _special_list(text) or _bracketed(text, depth) or Value(text)


def _bound(text: str, depth: int) -> Value | None:
    r"""A value with a name: `x = 5`, `x \in [1, 2]`, `x > 3`, `A(1, 2)`, `length: 5`; or worked out: `2 + 3 = 5`."""
    if not _ANY_SIGN.search(text):
        return None
    for pattern in (_BINDING, _MEMBERSHIP, _COLON_BINDING):
        named = pattern.fullmatch(text)
        if named:
            inner = _read(named[2].rpartition("=")[2], depth + 1)
            return replace(inner, label=_label(named[1]))
    worked_out = _WORKED_OUT.fullmatch(text)
    if worked_out:
        return _read(worked_out[1], depth + 1)
    named_tuple = _NAMES_TUPLE.fullmatch(text)
    if named_tuple and _is_sorted(named_tuple[1].replace(" ", "").split(",")):
        return _read(named_tuple[2], depth + 1)
    point = _POINT.fullmatch(text)
    if point and "," in point[2] and _closes_at_end(point[2]):
        inner = _bracketed(point[2], depth)
        return replace(inner, label=point[1] or "") if inner else None
    return _interval(text) if _RELATION.search(text) else None


def _is_sorted(names: list[str]) -> bool:
    return names == sorted(names)


def _special_list(text: str) -> Value | None:
    r"""`1 \pm \sqrt{2}` as two values and `1:2:3` as a ratio, whose brackets are ":"."""
    if text.count(r"\pm") == 1 and len(text) > 3:
        return Value(text, is_ordered=False, items=tuple(Value(_with_sign(text, sign)) for sign in "+-"))
    if ":" in text or _WORDED_RATIO.search(text):
        parts = _RATIO.split(text)
        if 1 < len(parts) <= _MAX_PARTS and all(parts):
            return Value(text, brackets=":", items=tuple(map(Value, parts)))
    return None


def _with_sign(text: str, sign: str) -> str:
    before, _, after = text.partition(r"\pm")
    return f"{before}{sign}{after.strip()}" if before or sign == "-" else after.strip()


def _matrix(text: str) -> Value | None:
    matrix = _MATRIX.fullmatch(text)
    if not matrix:
        return None
    rows = [row.split("&") for row in matrix[1].strip().removesuffix(r"\\").split(r"\\")]
    items = tuple(Value("", items=tuple(Value(cell.strip()) for cell in row)) for row in rows)
    return Value(text, brackets=MATRIX, items=items)


def _intersection(value: Value) -> Value | None:
    """`x > 3 and x < 5` as one interval; the bounds are not compared."""
    are_intervals = all(len(item.items) == len(item.brackets) == 2 for item in value.items)
    if len(value.items) != 2 or not value.label or not are_intervals:
        return None
    low, high = sorted(value.items, key=lambda item: item.items[0].text == r"-\infty")
    if low.items[1].text != r"\infty" or high.items[0].text != r"-\infty":
        return None
    brackets = low.brackets[0] + high.brackets[1]
    return Value(value.text, label=value.label, brackets=brackets, items=(low.items[0], high.items[1]))


def _collect(text: str, parts: list[str], depth: int, *, brackets: str = "", is_ordered: bool = True) -> Value:
    if len(parts) == 1:
        return _read(parts[0], depth + 1)
    items = tuple(_read(part, depth + 1) for part in parts)
    labels = [item.label for item in items]
    label = ""
    if labels[0] and all(name == labels[0] for name in labels):  # `x = 1, x = 2`: alternatives
        is_ordered = False
    if labels[0] and len(set(labels) - {""}) == 1:  # `n = 1, 2, 3`, or one name bound to every alternative
        label, items = labels[0], tuple(replace(item, label="") for item in items)
    return Value(text, label=label, brackets=brackets, is_ordered=is_ordered, items=items)


def _bracketed(text: str, depth: int) -> Value | None:
    inside = text.replace(r"\{", "{").replace(r"\}", "}")
    is_angled = inside.startswith("<") and inside.endswith(">") and "," in inside
    if is_angled:
        inside = f"({inside[1:-1]})"
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
    if text.startswith(r"\begin"):
        return [text]
    if _SPACED_NUMBERS.fullmatch(text) and not _SPACED_THOUSANDS.fullmatch(text):
        return text.split()
    if "," in text and (not is_bracketed or ", " in text):
        text = _THOUSANDS.sub(lambda match: match[1].replace(",", "\x00"), text)
    text = _JOINT.sub(",", text)
    separator = ";" if ";" in text else ","
    parts, level, start = [], 0, 0
    for index, character in enumerate(text if separator in text else ""):
        level += (character in _OPENING) - (character in _CLOSING)
        if character == separator and level <= 0:
            parts.append(text[start:index])
            start = index + 1
    parts = [part.replace("\x00", ",").strip() for part in (*parts, text[start:])]
    parts = [part for part in parts if part]
    return parts if 1 <= len(parts) <= _MAX_PARTS else [text.replace("\x00", ",")]


def _enumerated(text: str, depth: int) -> Value | None:
    """`(1) 5 (2) 7` and `a) 5 b) 7` as their answers, `(1)(3)` (how ①③ is cleaned) as a set of its marks."""
    marks = list(_MARK.finditer(text)) if text[:1] in "(1a" else []
    if not marks or marks[0].start() or len(marks) > _MAX_PARTS:
        return None
    names = tuple(mark[1] or mark[2] for mark in marks)
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    answers = [text[mark.end() : end].strip(" ;,.") for mark, end in zip(marks, ends, strict=True)]
    if len(marks) > 1 and all(answer in ("", "and", "和", "&") for answer in answers):
        return Value(text, is_ordered=False, items=tuple(map(Value, names)))
    is_counting = any(names == sequence[: len(names)] for sequence in _MARK_SEQUENCES)
    if not is_counting or not all(answer and answer[0] not in "/*^=" for answer in answers):
        return None
    return _collect(text, answers, depth)


def _label(name: str) -> str:
    return re.sub(r"\s+|\\angle|\\triangle|[{}]|^m(?=\\)|\\", "", name)


def _interval(text: str) -> Value | None:
    r"""`x > 3`, `3 < x` and `1 \le x < 2` as intervals labelled with the variable, `x \ne 2` as two of them."""
    pieces = [piece.strip() for piece in _RELATION.split(text)]
    if len(pieces) == 3:
        return _one_bound(text, *pieces)
    if len(pieces) != 5 or not re.fullmatch(_NAME, pieces[2]):
        return None
    low, first, name, second, high = pieces
    if first in (">", r"\ge") and second in (">", r"\ge"):
        low, first, second, high = high, _flipped(second), _flipped(first), low
    if first not in ("<", r"\le") or second not in ("<", r"\le"):
        return None
    return _interval_value(text, name, _BOUNDS[first], low, high, _CLOSE_BOUND[_BOUNDS[second]])


def _one_bound(text: str, left: str, relation: str, right: str) -> Value | None:
    if re.fullmatch(_NAME, right) and not re.fullmatch(_NAME, left):
        left, right, relation = right, left, _flipped(relation)
    if not re.fullmatch(_NAME, left) or not right:
        return None
    if relation == r"\ne":
        sides = ((r"-\infty", right), (right, r"\infty"))
        intervals = tuple(_interval_value(text, "", "(", *side, ")") for side in sides)
        return Value(text, label=_label(left), is_ordered=False, items=intervals)
    bound = _BOUNDS[relation]
    if relation in (">", r"\ge"):
        return _interval_value(text, left, bound, right, r"\infty", ")")
    return _interval_value(text, left, "(", r"-\infty", right, _CLOSE_BOUND[bound])


def _interval_value(text: str, name: str, opening: str, low: str, high: str, closing: str) -> Value:
    return Value(text, label=_label(name), brackets=opening + closing, items=(Value(low), Value(high)))


def _flipped(relation: str) -> str:
    return {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}.get(relation, relation)
