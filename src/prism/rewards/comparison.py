"""Whether two cleaned answers say the same, and the rule that tells: text, moments, quantities, structure, formulas."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from prism.rewards.formulas import Outcome, SymbolicPair, compare_formulas, has_variables, is_formula, latex
from prism.rewards.moments import is_same_moment
from prism.rewards.normalization import strip_phrases, text_key
from prism.rewards.quantities import is_same_quantity, read_quantity
from prism.rewards.structure import MATRIX, Value, read_value
from prism.rewards.verdict import Rule

_STATED_VALUE = re.compile(r".*\b(?:is|are|equals|has|have|contains|there are)\s+(.+)", re.IGNORECASE)
# The verb before a remark: `the height is 2\sqrt{3}, which is about 3.46`.
_STATED_BEFORE = re.compile(r".*(?<!\bwhich )\b(?:is|are|equals|has|have)\s+(.+, which is .+)", re.IGNORECASE)
_NOT_STATED = re.compile(
    r"\b(?:not|never|neither|than|least|most|between|or|if|either|cannot|no)\b|n't\b", re.IGNORECASE
)
_MAX_LEAF_PAIRS = 600
"""Larger sets are compared in the order of their texts, so that the time does not grow with the square."""
_OR = re.compile(r"\bor\b|或")
_APPROXIMATELY = r"(?:about|approximately|approx\.?|around|roughly|nearly|\\approx)\s*"
_PRECISION = (
    r"(?:(?:correct|accurate|rounded|given)(?: off)? )?(?:to )?(?:the )?(?:nearest (?:[a-z]+|10+|0\.0*1)"
    r"|(?:[1-9]|one|two|three|four) ?(?:d\.? ?p|s\.? ?f|sig(?:nificant|\.)? ?fig(?:ure|\.)?s?|decimal(?: place)?s?)\.?)"
)
# In parentheses, or behind a comma or "or" where words on precision begin it.
_REMARK = re.compile(
    rf"(.*[^ (])( ?)\(([^()]+)\)|(.+?)(?:, ?(?:or |which is )?| or )({_APPROXIMATELY}.+|{_PRECISION})", re.IGNORECASE
)
_HARMLESS = re.compile(
    rf"(?:since|because|as|where|rounded)\b.*|approximately|approx|exact(?:ly| value)?|{_PRECISION}", re.IGNORECASE
)
_SAME_AGAIN = re.compile(rf"(or )?({_APPROXIMATELY})?(.+)", re.IGNORECASE)
_FACTOR = re.compile(r"[-+]?[0-9.,]+")


@dataclass(frozen=True, slots=True)
class Finding:
    outcome: Outcome
    rule: Rule


def compare_statement(prediction: str, ground_truth: str) -> Finding:
    """Compare two texts as `clean` leaves them, which may be sentences that state a value."""
    stated, ground_truth = strip_phrases(prediction), strip_phrases(ground_truth)
    finding = _compare_but_for_remark(stated, ground_truth)
    for pattern in (_STATED_VALUE, _STATED_BEFORE):
        sentence = pattern.fullmatch(stated) if finding.outcome is False else None
        if sentence and not _NOT_STATED.search(stated):
            finding = _compare_but_for_remark(sentence[1], ground_truth)
    return finding


def _compare_but_for_remark(stated: str, ground_truth: str) -> Finding:
    """`5 (five)` as `5`; a remark that says something else than the statement makes both an answer of two."""
    finding = compare(stated, ground_truth)
    remark = _REMARK.fullmatch(stated) if finding.outcome is not True else None
    if not remark:
        return finding
    statement, words = remark[1] or remark[4], (remark[3] or remark[5]).strip()
    is_factor = remark[2] == "" and _FACTOR.fullmatch(words)  # 2(3) is a product
    is_harmless = not is_factor and _is_harmless(words, statement)
    if is_harmless is False:
        return finding
    without = compare(statement, ground_truth)
    return Finding(all_of((without.outcome, is_harmless)), without.rule)


def _is_harmless(remark: str, statement: str) -> Outcome:
    r"""A reason, words on precision, the same again (`5 (five)`, `0.75 (or 3/4)`), or the statement's value
    rounded: `2\sqrt{3} (3.46)`, `0.754 (about 0.75)`. `0.75 (0.8)` leaves open which of two decimals is meant."""
    if _HARMLESS.fullmatch(remark):
        return True
    again = _SAME_AGAIN.fullmatch(remark)
    if not again or compare(again[3], statement).outcome is True:
        return again is not None
    first, second = read_quantity(statement), read_quantity(again[3])
    is_rounded = again[2] or not (again[1] or (first and first.number.is_decimal))
    return bool(is_rounded and second and second.number.is_decimal) and compare(statement, again[3]).outcome


def compare(prediction: str, ground_truth: str) -> Finding:
    """Compare two texts as `clean` leaves them."""
    decided = _compare_as_written(prediction, ground_truth)
    if decided is not None:
        return decided
    first, second = read_value(prediction), read_value(ground_truth)
    outcome = _compare_values(first, second)
    if outcome is False and r"\approx" in prediction:  # \sqrt{2} \approx 1.41 names both
        parts = [part.strip() for part in prediction.split(r"\approx")]
        is_consistent = len(parts) == 2 and all(parts) and compare(*parts).outcome is True
        outcome = is_consistent and any(compare(part, ground_truth).outcome is True for part in parts)
    if first.items or second.items:
        return Finding(outcome, Rule.STRUCTURE)
    leaf = _compare_as_written(first.text, second.text)
    if leaf is not None:
        return Finding(outcome, leaf.rule)
    are_formulas = is_formula(first.text) and is_formula(second.text)
    return Finding(outcome, Rule.ALGEBRA if are_formulas else Rule.TEXT)


def all_of(outcomes: Iterable[Outcome]) -> Outcome:
    pairs: tuple[SymbolicPair, ...] = ()
    for outcome in outcomes:
        if outcome is False:
            return False
        if outcome is not True:
            pairs += outcome
    return pairs or True


def _compare_as_written(prediction: str, ground_truth: str) -> Finding | None:
    """Equal texts, clock times, dates or quantities; None where these do not decide."""
    if text_key(prediction) == text_key(ground_truth):
        return Finding(True, Rule.TEXT)
    is_same_time = is_same_moment(prediction, ground_truth)
    if is_same_time is not None:
        return Finding(is_same_time, Rule.TIME)
    first, second = read_quantity(prediction), read_quantity(ground_truth)
    if first and second:
        return Finding(is_same_quantity(first, second), Rule.QUANTITY)
    return None


def _compare_values(prediction: Value, ground_truth: Value) -> Outcome:
    if prediction.items and ground_truth.items:
        return _has_compatible_labels(prediction, ground_truth) and _compare_lists(prediction, ground_truth)
    if prediction.items or ground_truth.items:
        return _compare_alternatives(prediction, ground_truth) or _compare_ratio_with_number(prediction, ground_truth)
    labels = prediction.label, ground_truth.label
    texts = prediction.text, ground_truth.text
    if (any(labels) and any("=" in text for text in texts)) or not _has_compatible_labels(prediction, ground_truth):
        # `y = 2x + 3` against `2x - y + 3 = 0`: two equations, though only one reads as a binding.
        first, second = (f"{label}={text}" if label else text for label, text in zip(labels, texts, strict=True))
        are_equations = all(labels) and any(map(has_variables, texts))
        return compare_formulas(first, second) if are_equations or not all(labels) else False
    decided = _compare_as_written(*texts)
    return compare_formulas(*texts) if decided is None else decided.outcome


def _has_compatible_labels(prediction: Value, ground_truth: Value) -> bool:
    """A name on one side only is ignored, and so are words (`the total = 5`) in favour of symbols."""
    labels = prediction.label, ground_truth.label
    return not all(labels) or labels[0] == labels[1] or _is_word(labels[0]) != _is_word(labels[1])


def _is_word(label: str) -> bool:
    return len(label) > 3 and label.islower() and label.isalpha()


def _compare_lists(prediction: Value, ground_truth: Value) -> Outcome:
    first, second = prediction.items, ground_truth.items
    if len(first) != len(second) or (prediction.brackets == ":") != (ground_truth.brackets == ":"):
        return False
    if prediction.brackets == ":":
        return _compare_ratios([item.text for item in first], [item.text for item in second])
    if prediction.brackets and ground_truth.brackets and prediction.brackets != ground_truth.brackets:
        return False
    labels = [[item.label for item in items] for items in (first, second)]
    if all(labels[0]) and sorted(labels[0]) == sorted(labels[1]) and len(set(labels[0])) == len(first):
        by_label = {item.label: item for item in first}
        return all_of(_compare_values(by_label[item.label], item) for item in second)
    are_points = prediction.brackets != MATRIX and all(item.items for item in (*first, *second))
    if prediction.is_ordered and ground_truth.is_ordered and not are_points:
        return all_of(_compare_values(*pair) for pair in zip(first, second, strict=True))
    return _compare_unordered(first, second)


def _compare_alternatives(prediction: Value, ground_truth: Value) -> Outcome:
    """`3/4 or 0.75` for one value: alternatives that are the same are no hedge."""
    if not prediction.items or prediction.is_ordered or not _OR.search(prediction.text):
        return False
    first, *others = prediction.items
    is_one = all(_compare_values(other, first) is True for other in others)
    return is_one and _compare_values(first, ground_truth)


def _compare_ratios(first: list[str], second: list[str]) -> Outcome:
    """a:b:c and d:e:f are the same if every part of one is the same multiple of the other's."""
    return all_of(
        compare_formulas(f"({left})({second[0]})", f"({right})({first[0]})")
        for left, right in zip(first[1:], second[1:], strict=True)
    )


def _compare_ratio_with_number(prediction: Value, ground_truth: Value) -> Outcome:
    sides = []
    for value in (prediction, ground_truth):
        parts = [item.text for item in value.items]
        if parts and (value.brackets != ":" or len(parts) != 2):
            return False
        sides.append(rf"\frac{{{parts[0]}}}{{{parts[1]}}}" if parts else value.text)
    return compare_formulas(*sides)


def _compare_unordered(first: tuple[Value, ...], second: tuple[Value, ...]) -> Outcome:
    """Match equal members; what only algebra can match is left as one pair of sets."""
    if _num_leaves(first) * _num_leaves(second) > _MAX_LEAF_PAIRS:
        by_text = [sorted(items, key=lambda item: text_key(item.text)) for items in (first, second)]
        return all_of(_compare_values(*pair) for pair in zip(*by_text, strict=True))
    remaining, unmatched = list(second), []
    for item in first:
        outcomes = [_compare_values(item, candidate) for candidate in remaining]
        if True in outcomes:
            remaining.pop(outcomes.index(True))
        elif any(outcomes):
            unmatched.append(item)
        else:
            return False
    if len(unmatched) > 1:
        return (SymbolicPair(_latex_set(unmatched), _latex_set(remaining)),)
    return _compare_values(unmatched[0], remaining[0]) if unmatched else True


def _num_leaves(items: Iterable[Value]) -> int:
    return sum(_num_leaves(item.items) if item.items else 1 for item in items)


def _latex_set(items: Iterable[Value]) -> str:
    return rf"\{{{', '.join(latex(item.text) for item in items)}\}}"
