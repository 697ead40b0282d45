"""What free texts answer, as a careful reader would say; None where the reader would have to ask somebody."""

import time
from typing import Any

import pytest

from prism.evals.benchmarks.benchmark import Score
from prism.evals.benchmarks.extraction import score_verified
from prism.evals.scoring import score_item

NUMBERS = ("10", "20", "30", "40")
"""The right option is C."""
DIRECTIONS = ("increase", "decrease", "stays the same", "cannot be determined")
"""The right option is A."""
SAME_SIZE = {
    "category": "VD",
    "subcategory": "illusion",
    "visual_input": "1",
    "set_id": "0",
    "figure_id": "1",
    "question_id": "0",
    "question": "Is the right orange circle the same size as the left orange circle?",
    "gt_answer": "1",
    "gt_answer_details": "The right orange circle is the same size as the left orange circle.",
}


def verdict(score: Score | Any) -> bool | None:
    """None stands for a judge, who is asked and without whom nothing is right."""
    if score.needs_judge:
        assert score.is_correct is not True
        return None
    return score.is_correct


RIGHT_OPTIONS = [
    "C",
    "c) 30",
    "✅ C. 30",
    "C, because the sum is 180.",
    "(C)\n\nSince 180-150=30.",
    "C. 30\n\nThe sum of the angles is 180°, and hence we subtract 150.",
    "C\n\nThe angle sum in a triangle is 180 degrees, so the third angle is 30.",
    "**C. 30**\n\n**Explanation:**\n- The sum is 180.\n- 10 and 20 are too small.",
    "C. 30\n\nReasoning: A is wrong because it is 10.",
    "C. 30\n\nA. 10 is too small.\nB. 20 is too small.\nD. 40 is too large.",
    "C. 30\n\nOther options:\n- A. 10\n- B. 20\n- D. 40",
    "C. 30\n\nIf you have three angles, they add up to 180.",
    "Option C\n\nThe other angles are 100 and 50.",
    "30\n\nThe sum is 180.",
    "Answer: **C**\n\nOption B is 20, which is too small.",
    "Answer: C\n\nThe choice is clear: 180 − 150 = 30.",
    "Answer - C",
    "The answer is C. I choose this because it fits.",
    "The answer is C (30).\n\nNote: the other options are distractors.",
    "The answer is **C**, not B.",
    "The answer is C because A, B, and D are wrong.",
    "Since A and B are wrong, the answer is C.",
    "**The answer is C.** Since 180 − 150 = 30, B is out.",
    "The answer is C. The answer is correct.",
    "The answer, therefore, is C.",
    "The answer is:\nC\n\nExplanation:\nB is not possible.",
    "The correct answer is **C. 30**.\n\n### Explanation:\n\n- Option A…\n- Option D is wrong: it is too large.",
    "The correct answer is C.\n\nSo option D must be rejected.",
    "Therefore, the correct answer is:\n\n✅ **C. 30**",
    "The best choice is C: 30.\n\nOther options: A (10), B (20) are incorrect.",
    "The option that fits is C.\n\nThe others do not add up to 180.",
    "Final Answer\n\nC\n\nThe sum of the angles is 180°.",
    "### Final Answer\n**C. 30**\n\n### Why not the others\n- **A. 10**: too small\n- **B. 20**: too small",
    "A. 10\nB. 20\nC. 30\nD. 40\n\nThe correct option is C.",
    "A. 10\nB. 20\nC. 30\nD. 40\n\nThe angle is 30.",
    "Option A is wrong.\nOption B is wrong.\nOption C is correct.\nOption D is wrong.",
    "Step 1: find x.\nStep 2: x = 30.\n\n**C**\n\nExplanation: option B is 20.",
    "Thus, the area is 30 square units, which corresponds to option C.",
    "This matches option C (30). I hope this helps.",
    "I would choose C, since the angles add up to 180.",
    "So C.",
    "So A, B and C are collinear. The angle is 30.",
    "Therefore, the third angle is 30 degrees.\n\nI hope this helps!",
    "One might think it's B, but the answer is C.",
    "To find the answer, we add the angles, so the answer is C.",
    "正确答案是C。\n\n因为三角形内角和为180°。",
    "故选：C。",
    # A later commitment beats an earlier one.
    "B. 20\n\nOn checking, 180 - 150 = 30, so the answer is C.",
    "The answer is D.\n\nWait, that is the exterior angle. So the answer is C.",
    "The answer is not B. It is C.",
]
WRONG_OPTIONS = [
    "B\n\n20 is smaller than 30.",
    "20\n\nC. 30 would need a right angle.",
    "B. 20\n\nA. 10 is too small.\nC. 30 is too large.",
    "D. 40\n\nB. 20 and C. 30 are too small.",
    "Answer: **B**\n\nOption C is 30, which is too large.",
    "The answer is B.\n\n- Option A is wrong.\n- Option C: 30 is too large.",
    "The answer is B. The value cannot be 30.",
    "The answer is B.\n\nOne might think the answer is C, but that ignores the slope.",
    "The answer is B.\n\nA common mistake is to choose C.",
    "The answer is B, as 30 (C) ignores the exterior angle.",
    "The correct answer is **B. 20**.\n\nExplanation: the value must be less than 30.",
    "Option A is incorrect.\nOption B is correct.\nOption C is incorrect.",
    "Another option is C, but it is too large.\n\nI would go with B.",
    "I pick B. Option C looks close, too.",
    "In triangle ABC, angle C is marked.\n\nB",
    "The answer is A or C.",
    "答案：B\n\n选项C错误。",
    "C\n\nTherefore D is the correct answer.",
    "C\n\nActually, 180 - 140 = 40, so D.",
    "I first thought the answer is C. But that misses the exterior angle, so the answer is D.",
    "The answer would be C if the triangle were right-angled, but it is not.\n\nSo the answer is D.",
]
UNCLEAR_OPTIONS = [
    "A. 10\nB. 20\nC. 30\nD. 40",
    "A. 10 – too small\nB. 20 – too small\nC. 30 – just right\nD. 40 – too large",
    "Option C: 30 is too large.",
    "Comparing with option C, it's too large.",
    "Thus C is eliminated.",
    "I would not choose C.",
    "C is not correct.",
    "C is the midpoint of AB.",
    "None of the options is correct, but C is closest.",
    "If the answer is C, the sum would be 170.",
    "Is the answer C? No, 30 is too small.",
    "The answer choices are 10, 20, 30 and 40. None of them seems right.",
    "The final answer is the third option.",
    "The answer is C. Wait, I made a mistake. It should be 40.",
    "C. 30\n\nAnother option:\n- D. 40",
    "C\n\nIt matches the figure in D, so it corresponds to letter D.",
]


@pytest.mark.parametrize(
    ("response", "expected"),
    [(text, True) for text in RIGHT_OPTIONS]
    + [(text, False) for text in WRONG_OPTIONS]
    + [(text, None) for text in UNCLEAR_OPTIONS],
)
def test_which_option_a_text_commits_to(response: str, expected: bool | None) -> None:
    assert verdict(score_verified(response, "C", choices=NUMBERS)) is expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("Increase\n\nAs the volume shrinks, the pressure rises.", True),
        ("A. increase\n\nB. decrease would violate the gas law.", True),
        ("It will increase.", True),
        ("I choose increase.\n\nThe volume shrinks.", True),
        ("The pressure increases.\n\nOption A", True),
        ("Decrease\n\nAn increase is impossible.", False),
        ("The answer is decrease, not increase.", False),
        ("Cannot be determined\n\nThe figure lacks a scale.", False),
        ("An increase is impossible.", None),
    ],
)
def test_options_of_words(response: str, expected: bool | None) -> None:
    assert verdict(score_verified(response, "A", choices=DIRECTIONS)) is expected


def test_letters_whose_options_are_not_known() -> None:
    assert verdict(score_verified("C. The mitochondria\n\nThey produce energy.", "C")) is True
    assert verdict(score_verified("B\n\nOption C is too large.", "C")) is False
    assert verdict(score_verified("They produce energy.", "C")) is None


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("x = 12. This is the final answer.", True),
        ("12\n\nThis follows from adding the two sides.", True),
        ("12\n\nThis follows from adding 5 and 7.", True),
        ("**12**\n\nExplanation: 5 + 7", True),
        ("The answer is 12. We can check: 3*4=12.", True),
        ("The answer is 12\n\nHere 5 and 7 are the sides.", True),
        ("The answer is approx. 12", True),
        ("**Final Answer:**\n\n$$\n12\n$$", True),
        ("The perimeter is 12 cm. This completes the solution.", True),
        ("The length is 12.\n\nIn conclusion, the answer is twelve units.", True),
        ("AB = 5. BC = 7. So AC = 12.", True),
        ("AB = 5\n\nBC = 7\n\nSo AC = 12", True),
        ("x = 12\n\nVerification: 2x = 24, which matches the figure.", True),
        ("We choose 2 of 5 people. So there are 12 ways.", True),
        ("The sum is 10. Wait, that's wrong. The sum is 12.", True),
        ("So 12 apples remain.", True),
        ("13\n\nSince 5 + 7 + 1 = 13.", False),
        ("AB = 12. BC = 7. So AC = 19.", False),
        ("First, 5 + 7 = 12.\n\nTherefore the area is 24.", False),
        ("The answer is 13, not 12.", False),
        ("12\n\nThen we double it.\n\nSo the perimeter is 24.", None),
        ("24\n\nHalf of it is 12.", None),
        ("x = 12\n\nThere are 3 small squares in the row.", None),
        ("The total cost is 12. We need 15 of them.", None),
        ("The answer is 12. Wait, that is wrong.", None),
        ("The answer is obvious from the figure.", None),
        ("I don't know.", None),
    ],
)
def test_which_value_a_text_states(response: str, expected: bool | None) -> None:
    assert verdict(score_verified(response, "12")) is expected


def test_an_exact_value_with_its_rounding() -> None:
    response = "The height is $2\\sqrt{3}$, which is about 3.46.\n\nThis completes the proof."
    assert verdict(score_verified(response, "2\\sqrt{3}")) is True
    assert verdict(score_verified(response, "3.5")) is True
    assert verdict(score_verified(response, "2\\sqrt{2}")) is False


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("The answer is isosceles. Two sides are equal.", True),
        ("The triangle is isosceles.", True),
        ("The answer is scalene. It is not isosceles.", False),
        ("Isosceles\n\nTwo of its sides are equal.", None),
        ("We see that the triangle has two equal sides.", None),
    ],
)
def test_which_word_a_text_states(response: str, expected: bool | None) -> None:
    assert verdict(score_verified(response, "isosceles")) is expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("Yes. The image shows no difference.", True),
        (
            "Yes. This is a classic illusion: the two circles are of equal size although the left one looks larger.",
            True,
        ),
        ("Yes.\n\nBoth circles have the same diameter.", True),
        ("Yes\n\nThe right circle is not larger than the left one.", True),
        ("**Yes.** The image shows two equal circles.", True),
        ("**Yes**\n\nNo circle is larger than the other.", True),
        ("Right: 5 cm. Left: 5 cm.\n\nYes.", True),
        ("The circles look different at first.\n\nAnswer: yes", True),
        ("The circles have the same size.", True),
        ("No. The two circles differ.", False),
        ("No. They are not the same size.", False),
        ('No\n\nThe statement "they are the same size" is false.', False),
        ("Yes, it seems so at first. But the left one is larger, so the answer is no.", False),
        ("Yes. Wait, the left one is larger. No.", None),
        ("The right circle is larger.", None),
        ("The circles are the same size. This is a well-known illusion.", None),
    ],
)
def test_what_a_text_says_to_a_yes_or_no_question(response: str, expected: bool | None) -> None:
    assert verdict(score_item("hallusion_bench", SAME_SIZE, response)) is expected


@pytest.mark.parametrize(
    "response",
    [
        "a. " * 50_000,
        "- " * 50_000,
        "answer " * 30_000,
        "the option " * 20_000,
        "The answer is clear.\n" * 5000,
        "".join(f"{letter}. {number}\n" for number in range(2500) for letter in "AB"),
        "The angle is 30 degrees, so we get x = 12. " * 5000,
        "Wait. " * 30_000,
    ],
    ids=["sentences", "bullets", "announcements", "options", "remarks", "lists", "values", "corrections"],
)
@pytest.mark.parametrize(("truth", "choices"), [("C", NUMBERS), ("A", DIRECTIONS), ("12", None), ("word", None)])
def test_hostile_texts_are_read_in_linear_time(response: str, truth: str, choices: tuple[str, ...] | None) -> None:
    start = time.process_time()
    score_verified(response, truth, choices=choices)
    assert time.process_time() - start < 5  # quadratic time would take minutes
