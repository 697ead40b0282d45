import json
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism.rewards import Verdict, verifier_counts, verify_answer
from prism.rewards.normalization import clean
from prism.rewards.symbolic import SymbolicChecker, SymbolicResult, default_checker

GOLDEN = Path(__file__).parents[2] / "golden"


def test_agreement_with_labelled_cases():
    """186 predictions with the verdict of a careful human grader; the verifier was developed on them."""
    rows = [json.loads(line) for line in (GOLDEN / "answer_cases.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 186
    verdicts = {row["id"]: verify_answer(row["prediction"], row["ground_truth"]) for row in rows}
    accepted_wrongly = [row["id"] for row in rows if verdicts[row["id"]] == "correct" and not row["expected"]]
    rejected_wrongly = [row["id"] for row in rows if verdicts[row["id"]] != "correct" and row["expected"]]
    undecided = [name for name, verdict in verdicts.items() if verdict == "unverifiable"]
    assert (accepted_wrongly, rejected_wrongly, undecided) == ([], [], [])


def test_agreement_with_hand_written_pairs():
    lines = (GOLDEN / "answer_pairs.tsv").read_text("utf-8").splitlines()
    assert len(lines) > 300
    disagreements = []
    for line in lines:
        label, prediction, ground_truth = line.split("\t")
        verdict = verify_answer(prediction, ground_truth)
        if verdict != {"same": "correct", "different": "wrong"}[label]:
            disagreements.append((label, prediction, ground_truth, verdict.value))
    assert disagreements == []


def test_known_defects_of_the_released_verifier():
    for prediction, ground_truth in [
        ("$250", "$2.50"),
        ("x=35", "x=3.5"),
        ("5 kg", "5 lb"),
        ("(A) or (B)", "A"),
        ("5</answer><answer>6", "5"),
        ("1000000", "1000001"),
    ]:
        assert verify_answer(prediction, ground_truth) is Verdict.WRONG
    assert verify_answer("1000", "1,000") is Verdict.CORRECT


def test_any_equivalent_suffices():
    assert verify_answer("2 m", "half", equivalents=("200 cm", "x")) == "correct"
    assert verify_answer("3 m", "half", equivalents=("200 cm", "x")) == "wrong"
    assert verify_answer("5", "", equivalents=("5",)) == "correct"


def test_no_ground_truth_cannot_be_verified():
    assert verify_answer("5", " ") == "unverifiable"


@pytest.mark.parametrize("prediction", ["", "  ", "$$", "**"])
def test_no_prediction_is_wrong(prediction: str):
    assert verify_answer(prediction, "5") == "wrong"


CHOICES = ("30°", "45 degrees", r"\frac{\pi}{2} cm", "No correct answer")


@pytest.mark.parametrize(
    ("prediction", "ground_truth", "verdict"),
    [
        ("B", "B", "correct"),
        ("45°", "B", "correct"),
        ("B. 45°", "B", "correct"),
        ("b", "45 degrees", "correct"),
        ("(B) 45", "45 degrees", "correct"),
        ("A", "B", "wrong"),
        ("30", "B", "wrong"),
        ("B. 30°", "B", "wrong"),  # right letter, text of another option
        ("A. 45°", "B", "wrong"),
        ("A or B", "B", "wrong"),
        ("E", "B", "wrong"),  # there is no such option
        ("none", "D", "wrong"),
        ("no correct answer", "D", "correct"),
        (r"$\pi/2$ cm", "C", "correct"),
        (r"$\pi/3$ cm", "C", "wrong"),
    ],
)
def test_letters_and_option_texts_stand_for_each_other(prediction: str, ground_truth: str, verdict: str):
    assert verify_answer(prediction, ground_truth, choices=CHOICES) == verdict


def test_options_that_are_letters_themselves():
    assert verify_answer("A", "A", choices=("C", "B", "A")) == "correct"


def test_a_long_answer_is_not_searched():
    assert verify_answer("5 " * 5000, "5") == "unverifiable"
    text = "word " * 600
    assert verify_answer(text, text) == "correct"


@pytest.mark.parametrize(
    "piece",
    ["(", "a or ", "$", r"\frac{", "1,000,", "A or ", "the answer is ", "x=", r"\text{", r"\boxed{", "it is A "],
)
def test_hostile_answers_are_dealt_with_quickly(piece: str):
    started = time.process_time()
    for ground_truth in ("5", "B", "(1,2)", "yes"):
        verify_answer((piece * 2000)[:1999], ground_truth)
    assert time.process_time() - started < 1.0


def test_easy_cases_need_no_worker_and_are_fast():
    comparisons = default_checker().counts.comparisons
    count = 0
    started = time.process_time()
    for index in range(1000):
        verify_answer(f"{index}.25 kg", f"{index + 1}")
        verify_answer(f"The answer is {index}", str(index))
        verify_answer(f"(A) {index} cm", "B")
        verify_answer(f"word{index} car", "the other car")
        verify_answer(f"({index}, 3)", f"({index},4)")
        count += 5
    assert count / (time.process_time() - started) > 5000
    assert default_checker().counts.comparisons == comparisons


def test_verdicts_are_counted():
    before = verifier_counts()
    verify_answer("5", "5")
    verify_answer("6", "5")
    verify_answer("x+1", r"\foo{")
    after = verifier_counts()
    assert after.correct - before.correct == after.wrong - before.wrong == 1
    assert after.unverifiable - before.unverifiable == 1
    assert after.symbolic.unreadable_ground_truths - before.symbolic.unreadable_ground_truths == 1


class _Undecided(SymbolicChecker):
    def check(self, prediction: str, ground_truth: str, tolerance: Fraction = Fraction(0)) -> SymbolicResult:
        return SymbolicResult.TIMEOUT


_PIECES = (
    r"5 1 2,000 . , ; : / ( ) [ ] { } \{ \frac {1}{2} \sqrt ^ ° % $ kg cm^2 m/s x = < \le \pm A B. (C) or and not the "
    r"answer is yes no \boxed{ } $ ½ √ ² 三 百分之 o'clock pm inf \infty \cup e 1e5 - + * _ 0 ' \text{ 0.\overline{3}"
)
_pieces = st.lists(st.sampled_from(_PIECES.split()), max_size=8)
_texts = st.tuples(_pieces, st.sampled_from(["", " "])).map(lambda parts: parts[1].join(parts[0]))


@settings(max_examples=400, deadline=None)
@given(_texts, _texts, st.none() | st.lists(_texts, min_size=1, max_size=12))
def test_any_text_gets_a_verdict_and_every_text_equals_itself(first: str, second: str, choices: list[str] | None):
    assert verify_answer(first, second, choices=choices, checker=_Undecided()) in set(Verdict)
    verdict = verify_answer(first, first, checker=_Undecided())
    assert verdict == "correct" or not clean(first)
