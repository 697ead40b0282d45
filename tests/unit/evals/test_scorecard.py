"""From responses to numbers: who decided what, and what the judge may change."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from prism.errors import DataError
from prism.evals.benchmarks import BENCHMARKS
from prism.evals.benchmarks.benchmark import Judgement
from prism.evals.items import Item, read_items
from prism.evals.judge import Case, Ruling
from prism.evals.scorecard import ScoredResponse, ask_judge, score_responses, summarize_benchmark
from prism.evals.sources import Source, SourceRow
from prism.evals.tables import format_benchmarks

HALLUSION = BENCHMARKS["hallusion_bench"]


def row(question: int, truth: str = "1") -> dict[str, Any]:
    return {
        "category": "VS",
        "subcategory": "chart",
        "visual_input": "0",
        "set_id": "0",
        "figure_id": "1",
        "question_id": str(question),
        "question": f"Is bar {question} the longest?",
        "gt_answer": truth,
        "gt_answer_details": f"Bar {question} is the longest.",
    }


def source(*rows: dict[str, Any]) -> Source:
    found = [SourceRow(Path("test.jsonl"), number, row) for number, row in enumerate(rows, start=1)]
    return Source("test", Path("."), "0" * 64, lambda: iter(found))


ITEMS = read_items(HALLUSION, source(*(row(number) for number in range(4))))


def response(question: int, answer: str, *, mode: str = "greedy", sample: int = 0, is_finished: bool = True) -> dict:
    item_id = list(ITEMS)[question]
    text = f"<caption>a</caption><think>b</think><answer>{answer}</answer>" if answer else ""
    return {
        "mode": mode,
        "item_id": item_id,
        "sample": sample,
        "response": text,
        "num_tokens": 10,
        "is_finished": is_finished,
    }


class Says:
    """A judge that always says the same, and keeps what it was asked."""

    def __init__(self, verdict: Judgement) -> None:
        self._verdict: Judgement = verdict
        self.cases: list[Case] = []

    def judge(self, cases: Sequence[Case]) -> list[Ruling]:
        self.cases += cases
        return [Ruling(self._verdict, True, self._verdict, "0", None, None, False) for _ in cases]


ANSWERS = ["Yes", "No", "Mauve", ""]


def scored(answers: Sequence[str] = ANSWERS) -> tuple[list[ScoredResponse], list[str]]:
    rows = [response(number, answer, is_finished=bool(answer)) for number, answer in enumerate(answers)]
    return score_responses("hallusion_bench", ITEMS, rows), [row["response"] for row in rows]


def test_rules_alone() -> None:
    [summary] = summarize_benchmark("hallusion_bench", scored()[0]).values()
    assert (summary["num_items"], summary["num_responses"], summary["num_truncated"]) == (4, 4, 1)
    assert summary["mean_tokens"] == 10 and summary["judge"] is None
    strict = summary["profiles"]["strict"]
    assert strict["rules"]["aAcc"]["mean"] == 0.25 and strict["judged"] is None
    # "Mauve" is for a judge; the empty response holds no answer, which the rules do decide.
    assert strict["counts"] == {"rule": 3, "judge": 0, "undecided": 1, "unparseable": 1}


def test_a_judge_of_everything_raises_and_lowers() -> None:
    judge = Says("incorrect")
    judged = ask_judge(judge, "all", ITEMS, *scored())  # pyright: ignore[reportArgumentType]
    [summary] = summarize_benchmark("hallusion_bench", judged, scope="all").values()
    strict = summary["profiles"]["strict"]
    assert len(judge.cases) == 4 and strict["counts"]["judge"] == 4
    assert strict["rules"]["aAcc"]["mean"] == 0.25 and strict["judged"]["aAcc"]["mean"] == 0
    assert strict["agreement"]["table"]["correct"]["incorrect"] == 1
    assert strict["agreement"]["table"]["unclear"]["incorrect"] == 1
    assert judge.cases[0] == Case(
        ITEMS[next(iter(ITEMS))].prompt.question, "Bar 0 is the longest.", scored()[1][0], "statement"
    )


def test_a_judge_of_the_undecided_changes_nothing_else() -> None:
    judge = Says("correct")
    judged = ask_judge(judge, "undecided", ITEMS, *scored(["Yes", "No", "Mauve"]))  # pyright: ignore[reportArgumentType]
    [summary] = summarize_benchmark("hallusion_bench", judged, scope="undecided").values()
    strict = summary["profiles"]["strict"]
    assert len(judge.cases) == 1
    assert strict["counts"] == {"rule": 2, "judge": 1, "undecided": 0, "unparseable": 0}
    assert strict["judged"]["aAcc"]["mean"] == pytest.approx(2 / 3)


def test_the_judge_is_told_all_right_answers() -> None:
    """As MMMU's open questions may have several."""
    row = {"id": "validation_Math_1", "question": "How many?", "question_type": "open", "options": "[]"}
    items = read_items(BENCHMARKS["mmmu"], source(row | {"answer": "['24.32', '24']"}))
    [item_id] = items
    rows = [response(0, "about two dozen") | {"item_id": item_id}]
    judge = Says("correct")
    ask_judge(judge, "all", items, score_responses("mmmu", items, rows), ["two dozen"])  # pyright: ignore[reportArgumentType]
    assert judge.cases[0].ground_truth.splitlines()[1:] == ["- 24.32", "- 24"]


def test_samples_give_avg_and_pass_at_k() -> None:
    answers = [("Yes", "No"), ("No", "No"), ("Yes", "Yes"), ("No", "Yes")]
    rows = [
        response(number, answer, mode="sampled", sample=sample)
        for number, pair in enumerate(answers)
        for sample, answer in enumerate(pair)
    ]
    summary = summarize_benchmark("hallusion_bench", score_responses("hallusion_bench", ITEMS, rows), pass_at=[1, 2])
    metrics = summary["sampled"]["profiles"]["prism"]["rules"]
    assert metrics["avg@2"]["mean"] == metrics["pass@1"]["mean"] == metrics["aAcc"]["mean"] == 0.5
    assert metrics["pass@2"]["mean"] == 0.75


def test_the_table_has_a_line_per_benchmark_and_no_average_of_one() -> None:
    table = format_benchmarks({"hallusion_bench": {"modes": summarize_benchmark("hallusion_bench", scored()[0])}})
    lines = table.splitlines()
    assert lines[1].split()[:3] == ["hallusion_bench", "aAcc", "25.0"] and "average" not in table
    assert lines[1].split()[-4:] == ["1", "1", "1", "4"]


def test_a_row_that_cannot_be_used_is_named() -> None:
    with pytest.raises(DataError, match=r"test\.jsonl, row 2: gt_answer"):
        read_items(HALLUSION, source(row(0), row(1, truth="maybe")))


def test_an_item_that_comes_twice_is_refused_and_a_limit_comes_before() -> None:
    with pytest.raises(DataError, match="row 2: a second item"):
        read_items(HALLUSION, source(row(0), row(0)))
    items = read_items(HALLUSION, source(row(0), row(0)), limit=1, system="Be brief.")
    [item] = items.values()
    assert isinstance(item, Item) and item.prompt.system == "Be brief." and item.prompt.id == next(iter(items))
