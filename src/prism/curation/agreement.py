"""How many of a row's demonstrations give the same answer, and which answer that makes right where there is none to
check against."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from prism.rewards import verify_answer


def count_same(answers: Sequence[str]) -> list[int]:
    """Of each answer, how many are the same, itself included."""
    distinct = Counter(answers)
    same = dict(distinct)
    for first, second in combinations(distinct, 2):
        if is_same(first, second):
            same[first] += distinct[second]
            same[second] += distinct[first]
    return [same[answer] for answer in answers]


def is_enough(counts: Sequence[int], min_share: float, num_failed: int = 0) -> bool:
    """Whether the most frequent answer could count as right: two give it, and `min_share` of all samples, `num_failed`
    of which have no answer."""
    return max(counts) >= 2 and max(counts) / (len(counts) + num_failed) >= min_share


def verdicts_by_majority(
    answers: Sequence[str], counts: Sequence[int], min_share: float, num_failed: int = 0
) -> list[str]:
    """Of each answer, with the `counts` of `count_same`: correct for the most frequent one, wrong for those that are
    another. Nobody knows where it is not frequent enough, or where two that differ are the most frequent.

    Being the same is not transitive: 1/3 may be 0.33 and 0.33 be 0.334. What is the same as the most frequent answer
    and less frequent is neither right nor wrong, since two such answers may contradict each other.
    """
    leaders = {answer for answer, count in zip(answers, counts, strict=True) if count == max(counts)}
    is_tied = not all(is_same(first, second) for first, second in combinations(leaders, 2))
    if is_tied or not is_enough(counts, min_share, num_failed):
        return ["unverifiable"] * len(answers)

    def verdict(answer: str) -> str:
        if answer in leaders:
            return "correct"
        return "unverifiable" if any(is_same(answer, leader) for leader in leaders) else "wrong"

    return [verdict(answer) for answer in answers]


def is_same(first: str, second: str) -> bool:
    """Symmetric, which the verifier is not: an answer may be written more loosely than a solution."""
    return first == second or verify_answer(first, second) == "correct" or verify_answer(second, first) == "correct"
