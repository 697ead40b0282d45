"""Remarks behind an answer: which of them say nothing else than the answer does."""

import pytest

from prism.rewards import verify_answer


@pytest.mark.parametrize(
    ("prediction", "ground_truth"),
    [
        ("2√3 (about 3.46)", "2√3"),
        (r"2\sqrt{3} (\approx 3.46)", "2√3"),
        ("2√3 (3.46)", "2√3"),
        ("2√3, approximately 3.46", "2√3"),
        ("2√3, which is about 3.5", "2√3"),
        ("2√3 or about 3.46", "2√3"),
        ("x = 2√3 (≈ 3.46)", "2√3"),
        ("The height is 2√3 (about 3.46).", "2√3"),
        (r"$2\sqrt{3}\text{ cm}$ (about 3.46 cm)", r"2\sqrt{3}"),
        ("1/3 (≈0.333)", "1/3"),
        ("1/3 (about 33.3%)", "1/3"),
        ("4π (≈ 12.57)", "4π"),
        ("-√2 - √3 (-3.146)", "-√2 - √3"),
        ("sin 10° (0.174)", "sin 10°"),
        ("0.754 (about 0.75)", "0.754"),
        ("5.2 cm (1 d.p.)", "5.2"),
        ("5.2 cm, to 2 significant figures", "5.2 cm"),
        ("5.2 (correct to one decimal place)", "5.2"),
        ("5 (to the nearest integer)", "5"),
        ("12 (rounded up)", "12"),
        ("12 (exactly)", "12"),
        ("5 (five)", "5"),
        ("0.75 (or 3/4)", "0.75"),
    ],
)
def test_a_remark_that_says_the_same_does_no_harm(prediction: str, ground_truth: str):
    assert verify_answer(prediction, ground_truth) == "correct"


@pytest.mark.parametrize(
    ("prediction", "ground_truths"),
    [
        ("2√3 (about 4.46)", ["2√3", "4.46"]),
        ("2√3 (approximately 5)", ["2√3", "5"]),
        ("2√3 (3)", ["2√3", "3"]),
        ("2√3 (4.0)", ["2√3", "4"]),
        ("-2√3 (3.46)", ["-2√3", "2√3", "3.46"]),
        ("2√3, 3.46", ["2√3", "3.46"]),
        ("2√3 or 3.46", ["2√3"]),
        ("2√3 (about 3.46 or 5)", ["2√3", "5"]),
        ("2√3 (about 3.46) or 5", ["2√3", "5"]),
        ("5, 2√3 (about 3.46)", ["2√3", "5"]),
        ("1/3 (0.5)", ["1/3", "0.5"]),
        ("0.75 (0.8)", ["0.75"]),
        ("0.75 (or 0.8)", ["0.75"]),
        ("5 (6)", ["5", "6"]),
        ("5 (exactly 6)", ["5", "6"]),
        ("5, approximately 6", ["5", "6"]),
        ("5.2 (1 d.p. 6.3)", ["5.2", "6.3"]),
        ("100 (99.6)", ["100", "99.6"]),
        ("(3, 4)", ["3", "4"]),
        ("P (3.0, 4.0)", ["P", "3"]),
        ("x (0.5)", ["x", "0.5"]),
        ("2(2)", ["2"]),  # a product
        ("2√3(3.46)", ["2√3"]),
        ("3.46", ["2√3"]),
        ("about 3.46", ["2√3"]),
    ],
)
def test_two_answers_and_roundings_alone_stay_wrong(prediction: str, ground_truths: list[str]):
    """Whichever of the two is right, so that a policy gains nothing by naming both."""
    for ground_truth in ground_truths:
        assert verify_answer(prediction, ground_truth) == "wrong"
