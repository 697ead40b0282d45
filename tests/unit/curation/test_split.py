"""Reserved pools: what goes into them, in which order, and that nothing is on two sides."""

import io
import random
from collections import defaultdict
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import networkx
import pytest
from PIL import Image

from curated_rows import Scripted, fill
from prism.config import QualityWeights, SplitConfig
from prism.curation import Part, Row, Store, count_step, run_step, run_whole_step
from prism.curation.rows import Outcome, kept
from prism.curation.split import Split, shared_keys
from prism.records import ImageSource, Prompt

GOOD = "<caption>a circle, a square</caption><think>1. Look.\n2. Count.</think><answer>2</answer>"
BAD_FORMAT = "The answer is 2."


def flat(colour: int, kind: str = "PNG") -> ImageSource:
    stream = io.BytesIO()
    Image.new("RGB", (4, 3), (colour, 0, 0)).save(stream, kind)
    return ImageSource(data=stream.getvalue())


def row(number: int, *colours: int, completion: str | None = GOOD, question: str | None = None, **found: Any) -> Row:
    prompt = Prompt(str(number), question or f"Question {number}?", tuple(map(flat, colours)), answer="2")
    return Row(f"made/{number}", prompt, completion, findings=found)


def split(rows: list[Row], **settings: Any) -> dict[str, Outcome]:
    step = Split(SplitConfig(**settings))
    features = list(step.describe(iter(rows)))
    return {outcome.row_id: outcome for outcome in step.decide(features)}


def sides(outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    return {row_id.split("/")[1]: out.findings.get("split", "dropped") for row_id, out in outcomes.items()}


def rated(pass_rate: float, name: str, num_unverifiable: int = 0) -> dict[str, Any]:
    return {"pass_rate": pass_rate, "set": name, "num_samples": 8, "num_unverifiable": num_unverifiable}


def test_the_best_demonstrations_are_reserved_best_first() -> None:
    """Only `grounding` (of 8 items) and `reasoning` (of 6 steps) differ: 2/8 and 2/6 make 0.2917 of their weights."""

    def shown(num_items: int) -> str:
        return GOOD.replace("a circle, a square", ", ".join(f"item {n}" for n in range(num_items)))

    rows = [row(n, completion=shown(items)) for n, items in enumerate([1, 8, 2, 20, 4])]
    outcomes = split(rows, alignment=3)
    assert sides(outcomes) == {"0": "sft", "1": "alignment", "2": "sft", "3": "alignment", "4": "alignment"}
    found = [outcomes[f"made/{n}"].findings for n in (1, 3, 4)]
    assert [each["place"] for each in found] == [1, 2, 3]
    # Weights 1 and 1 of 3 + 2 + 2 + 1 + 1 + 1 = 10: (1 + 2/6) / 10, and (4/8 + 2/6) / 10.
    assert [each["score"] for each in found] == pytest.approx([0.133333] * 2 + [0.083333], abs=1e-5)


def test_what_is_verified_hard_and_right_at_once_goes_first() -> None:
    samples = [{"text": GOOD, "draw": 0, "is_repaired": False}]
    repaired = [{"text": GOOD, "draw": 0, "is_repaired": True}]
    hard = rated(0.0, "hard")
    rows = [
        row(0, completion=None, teach={"samples": samples}),
        row(1, completion=None, teach={"samples": samples}, difficulty=hard),
        row(2, completion=None, teach={"samples": repaired}, difficulty=hard),
        row(3, completion=None, teach={"samples": samples}, difficulty=hard, verify={"text": GOOD}),
        row(
            4,
            completion=None,
            teach={"samples": samples},
            difficulty=hard,
            verify={"text": GOOD, "verdicts": {"correct": 2, "wrong": 2}, "from_nowhere": ["7"]},
        ),
    ]
    outcomes = split(rows)
    places = {row_id: outcome.findings["place"] for row_id, outcome in outcomes.items()}
    assert sorted(places, key=places.__getitem__) == [f"made/{n}" for n in (4, 3, 1, 2, 0)]
    assert outcomes["made/4"].findings["signals"] == {
        "verified": 1, "agreement": 0.5, "difficulty": 1, "grounding": 0.125, "reasoning": 0.3333, "first_try": 1,
    }  # fmt: skip
    only = QualityWeights(verified=0, agreement=1, difficulty=0, grounding=0, reasoning=0, first_try=0)
    scores = [outcome.findings["score"] for outcome in split(rows, weights=only).values()]
    assert scores == [0, 0, 0, 0, 0.5]


def test_rl_takes_the_problems_that_are_solved_half_of_the_time() -> None:
    rows = [
        row(0, completion=None, difficulty=rated(0.25, "rl")),
        row(1, completion=None, difficulty=rated(0.5, "rl")),
        row(2, completion=None, difficulty=rated(0.5, "rl", num_unverifiable=8)),
        row(3, completion=None, difficulty=rated(0.9, "easy")),
        row(4, difficulty=rated(0.75, "rl")),
        row(5, difficulty=rated(0.9, "easy")),
        row(6, difficulty=rated(0.1, "between")),
        row(7, completion=BAD_FORMAT),
    ]
    outcomes = split(rows, rl=2)
    assert sides(outcomes) == {
        "0": "rl", "1": "rl", "2": "dropped", "3": "dropped", "4": "sft", "5": "sft", "6": "sft", "7": "sft",
    }  # fmt: skip
    assert outcomes["made/1"].findings == {"split": "rl", "score": 1.0, "place": 1}
    assert outcomes["made/0"].findings["score"] == 0.75
    assert outcomes["made/3"].reason == "has no demonstration and is not chosen for RL"


def test_what_shares_with_the_pool_goes_there_or_is_dropped() -> None:
    rows = [
        row(0, 10),
        row(1, 10, 11),
        row(2, 11, completion=BAD_FORMAT),
        row(3, 12),
        row(4, question="  QUESTION 3? ", completion=BAD_FORMAT),
        row(5, question="question 5?", completion=BAD_FORMAT),
    ]
    outcomes = split(rows, alignment=2)
    # 0 and 1 belong together and fill the pool; 2 hangs on them by an image and has no valid format.
    assert sides(outcomes) == {"0": "alignment", "1": "alignment", "2": "dropped", "3": "sft", "4": "sft", "5": "sft"}
    assert outcomes["made/2"].reason == "shares an image or a problem with what is reserved for alignment"
    # Rows that hang together and are more than there is room for stay with SFT.
    assert sides(split(rows, alignment=1)) == {
        "0": "sft", "1": "sft", "2": "sft", "3": "alignment", "4": "sft", "5": "sft",
    }  # fmt: skip


def test_the_same_problem_is_the_same_text_about_the_same_pixels() -> None:
    question = "<image>How many?"
    one = Prompt("1", question, (flat(1),), choices=("red", "Blue"))
    again = Prompt("2", " how  MANY?", (flat(1, "BMP"),), choices=("Red", "blue"))
    assert shared_keys(one) == shared_keys(again) and len(shared_keys(one)) == 2
    other_image = Prompt("3", question, (flat(2),), choices=("red", "Blue"))
    assert not set(shared_keys(one)) & set(shared_keys(other_image))


@pytest.mark.parametrize("seed", range(6))
def test_no_image_and_no_problem_is_on_two_sides(seed: int) -> None:
    source = random.Random(seed)
    rows = [
        row(
            number,
            *source.sample(range(40), k=source.choice([0, 1, 1, 2])),
            question=f"Question {source.randrange(60)}?",
            completion=source.choice([GOOD, BAD_FORMAT, None]),
            difficulty=source.choice([rated(0, "hard"), rated(0.5, "rl"), rated(1, "easy")]),
        )
        for number in range(80)
    ]
    outcomes = split(rows, alignment=8, rl=8)
    graph = networkx.Graph()
    graph.add_nodes_from(each.id for each in rows)
    owners: dict[Any, list[str]] = defaultdict(list)
    for each in rows:
        pixels = [image.data for image in each.prompt.images]
        for key in (*pixels, (each.prompt.question, *pixels)):
            owners[key].append(each.id)
    for ids in owners.values():
        graph.add_edges_from(combinations(ids, 2))
    used = {row_id: outcome.findings.get("split") for row_id, outcome in outcomes.items()}
    for component in networkx.connected_components(graph):
        assert len({used[row_id] for row_id in component} - {None}) <= 1
    counts = [sum(side == name for side in used.values()) for name in ("alignment", "rl", "sft")]
    assert 0 < counts[0] <= 8 and 0 < counts[1] <= 8 and counts[2] > 0


@pytest.mark.parametrize("count", [1, 3])
def test_the_split_does_not_depend_on_how_the_rows_were_spread(tmp_path: Path, count: int) -> None:
    rows = [row(number, number % 7, completion=GOOD if number % 3 else None) for number in range(30)]
    store = Store.create(tmp_path / "store", 3)
    fill(store, rows)
    rates = Scripted("difficulty", lambda each: kept(each, **rated(*((0.0, "hard"), (0.5, "rl"))[len(each.id) % 2])))
    run_step(store, rates)
    config = SplitConfig(alignment=4, rl=4)
    for index in range(count):
        run_whole_step(store, Split(config), Part(index, count))
    run_whole_step(store, Split(config))
    expected = split([*store.rows(before="split")], alignment=4, rl=4)
    assert {outcome.row_id: outcome for outcome in store.outcomes("split")} == expected
    funnel = count_step(store, "split")
    assert funnel.num_in == 30 and funnel.num_pending == 0
    assert run_whole_step(store, Split(config)) == 0
