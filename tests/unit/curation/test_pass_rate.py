"""Sets of problems by hand, and early stopping against all samples there could have been."""

import itertools
import random
from typing import Literal

import pytest

from prism.curation.pass_rate import Band, Tries, is_never_solved, set_of_first
from prism.rewards import Verdict
from prism.rewards.verdict import Rule

BAND = Band(0.2, 0.8)


def tries(verdicts: str) -> Tries:
    """From letters: c, w and u."""
    names: dict[str, Literal["correct", "wrong", "unverifiable"]] = {
        "c": "correct",
        "w": "wrong",
        "u": "unverifiable",
    }
    found = Tries()
    for letter in verdicts:
        found = found.add(Verdict(names[letter], Rule.TEXT))
    return found


@pytest.mark.parametrize(
    ("verdicts", "num_planned", "found"),
    [
        ("wwwww", 5, "hard"),
        ("wwwwc", 5, "rl"),  # 0.2 is in the band
        ("ccccw", 5, "rl"),  # and so is 0.8
        ("ccccc", 5, "easy"),
        ("wwwwwwwwwwwwwwwc", 16, "between"),
        ("wwwwwwwwwwwwwccc", 16, "between"),  # 0.19
        ("wwwwwwwwwwwwcccc", 16, "rl"),
        ("cccccccccccccwww", 16, "easy"),  # 0.81
        ("wwww", 5, None),  # hard, or 0.2
        ("cw", 5, "rl"),  # 0.2 to 0.8, whatever comes
        ("cccc", 5, None),
        ("ccccccccccccc", 16, "easy"),  # 13 already
        ("cwwwwwwwwwwwww", 16, "between"),  # at most 3
        ("", 5, None),
        ("wwwwu", 5, None),  # the unverifiable one could be the only pass
        ("cwwwu", 5, "rl"),
        ("uuuuu", 5, None),
    ],
)
def test_the_set(verdicts: str, num_planned: int, found: str | None) -> None:
    assert set_of_first(tries(verdicts), num_planned, BAND) == found


@pytest.mark.parametrize("num_planned", [1, 2, 5, 7, 10])
def test_stopping_early_never_changes_the_set(num_planned: int) -> None:
    num_saved = 0
    for outcome in itertools.product("cw", repeat=num_planned):
        letters = "".join(outcome)
        final = set_of_first(tries(letters), num_planned, BAND)
        assert final is not None
        seen = next(n for n in range(num_planned + 1) if set_of_first(tries(letters[:n]), num_planned, BAND))
        assert set_of_first(tries(letters[:seen]), num_planned, BAND) == final
        num_saved += num_planned - seen
    assert (num_saved > 0) is (num_planned > 2)


def test_a_set_does_not_depend_on_what_cannot_be_verified() -> None:
    source = random.Random(0)
    for _ in range(500):
        letters = "".join(source.choices("cwu", weights=(2, 3, 1), k=8))
        found = set_of_first(tries(letters), 8, BAND)
        possible = {
            set_of_first(tries(letters.replace("u", "{}").format(*filling)), 8, BAND)
            for filling in itertools.product("cw", repeat=letters.count("u"))
        }
        assert possible == {found} if found else len(possible) > 1


def test_another_model() -> None:
    assert is_never_solved(tries("wwww"), 4) is True
    assert is_never_solved(tries("www"), 4) is None
    assert is_never_solved(tries("wwwu"), 4) is None
    assert is_never_solved(tries("c"), 4) is False


def test_the_numbers_told() -> None:
    told = tries("cwwwu").to_dict()
    # Wilson's interval of 1 in 4 at 95%, from the formula by hand.
    assert (told["low"], told["high"]) == (pytest.approx(0.0456, abs=1e-4), pytest.approx(0.6994, abs=1e-4))
    assert (told["num_correct"], told["num_samples"], told["num_unverifiable"], told["pass_rate"]) == (1, 4, 1, 0.25)
    assert tries("uu").to_dict()["pass_rate"] is None
