"""Numbers that come from nowhere, and all the ways in which a number may come from somewhere."""

import time

import pytest

from prism.curation.grounding import check_grounding
from prism.data.world.datasets import CURATED, FAITHFUL, demonstrations
from prism.records import Prompt
from prism.rewards import parse_response

CAPTION = "A right triangle ABC. Leg AB is labelled 6. Leg BC is labelled 8. The angle at B is a right angle."


def from_nowhere(think: str, question: str = "How long is AC, in cm?") -> tuple[str, ...]:
    response = parse_response(f"<caption>{CAPTION}</caption><think>{think}</think><answer>10</answer>")
    return check_grounding(Prompt("a", question), response).from_nowhere


@pytest.mark.parametrize(
    "think",
    [
        "1. AB is 6 and BC is 8.\n2. Their squares are 36 and 64.\n3. Together that makes 100.\n4. The root is 10.",
        "1. AC = \\sqrt{6^2 + 8^2} = \\sqrt{100} = 10.",
        "1. 6 * 8 / 2 = 24, the area.\n2. Half of 24 is 12.",
        "1. The ratio 8/6 is 1.33.\n2. As a percentage 133.3.",
        "1. Six and eight differ by two.",
        "17. Step numbers are no claims.\nStep 18: nor this one.",
        "1. Point A1 and vertex x2 are names.",
        "1. The angles sum to 180, so the others have 90 together.",
    ],
)
def test_grounded(think: str) -> None:
    assert from_nowhere(think) == ()


@pytest.mark.parametrize(
    ("think", "numbers"),
    [
        ("1. AB is 7.5 and BC is 8.", ("7.5",)),
        ("1. AC = 37.", ("37",)),
        ("1. The third side is labelled 23.", ("23",)),
        ("1. It is 23, so 23 + 6 = 29.\n2. And 4,711 more.", ("23", "4,711")),
    ],
)
def test_from_nowhere(think: str, numbers: tuple[str, ...]) -> None:
    assert from_nowhere(think) == numbers


def test_the_question_is_evidence() -> None:
    assert from_nowhere("1. CD is 23.") == ("23",)
    assert from_nowhere("1. CD is 23.", "CD = 23. How long is AC?") == ()


@pytest.mark.parametrize(
    ("think", "numbers"),
    [
        ("1. AC is 6 * 8, which makes it = 37.", ()),
        ("1. AC = 37, since 6 * 8 is that.", ("37",)),
        ("1. Since 6 * 8 is that:\nAC = 37.", ("37",)),
        ("1. By $\\frac{a}{b}$ it is \\approx 37.", ()),
        ("1. It is \\approx 37 by $\\frac{a}{b}$.", ("37",)),
    ],
)
def test_a_result_stands_behind_its_calculation_on_the_same_line(think: str, numbers: tuple[str, ...]) -> None:
    assert from_nowhere(think) == numbers


@pytest.mark.parametrize(
    "part",
    [
        "so x = 17, y = 29, z = 31, ",
        "so 4 + 13 = 17, = = = 29, \\frac = 31, ",
        "{n}.{n}, {n} and = {n}{n}; ",
    ],
)
def test_a_long_line_takes_no_longer_than_its_length(part: str) -> None:
    line = "".join(part.format(n=n) for n in range(100_000 // len(part)))
    start = time.process_time()
    from_nowhere(f"1. {line}")
    check_grounding(
        Prompt("a", line), parse_response(f"<caption>{line}</caption><think>{line}</think><answer>1</answer>")
    )
    assert time.process_time() - start < 15


def test_faithful_demonstrations_are_grounded_and_a_planted_number_is_found() -> None:
    found = 0
    examples = list(demonstrations("world", CURATED, FAITHFUL, 100, seed=5))
    for example in examples:
        assert check_grounding(example.prompt, parse_response(example.completion)).from_nowhere == ()
        planted = example.completion.replace("\n2. ", "\n2. with 37 more, ", 1)
        found += check_grounding(example.prompt, parse_response(planted)).from_nowhere == ("37",)
    assert found >= 95
