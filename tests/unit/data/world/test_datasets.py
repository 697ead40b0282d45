"""What each data set holds: splits, kinds, layouts and counts, read from the prompts themselves."""

import re
from collections import Counter
from collections.abc import Iterable

import pytest

from prism.data.world import datasets as world
from prism.data.world.datasets import (
    BENCHMARKS,
    CURATED,
    DEV,
    FAITHFUL,
    PUBLIC,
    ROLLOUT,
    Source,
    count_items,
    demonstrations,
    described_fraction,
)
from prism.data.world.oracle import Fidelity
from prism.data.world.questions import KINDS
from prism.data.world.scene import decode_scene, split_of
from prism.records import Prompt
from prism.rewards import parse_response, verdict_of

TRAINED_KINDS = {"count", "compare"}
TRAINED_LAYOUTS = {"3x3", "2x4"}


def layout(prompt: Prompt) -> str:
    return prompt.metadata["scene"].split(":")[0]


def num_matching(prompt: Prompt) -> int:
    """How many objects a counting or adding question is about; 0 for other questions."""
    found = re.search(r"(?:How many|numbers on the) (\w+?)(?: objects|s)(?: are there)?\?", prompt.question)
    return prompt.metadata["scene"].count(found[1]) if found else 0


def prompts_of(source: Source, count: int, *, seed: int = 1) -> list[Prompt]:
    return [example.prompt for example in demonstrations("x", source, FAITHFUL, count, seed)]


def is_of_reinforcement_learning(prompt: Prompt) -> bool:
    return prompt.kind in TRAINED_KINDS and layout(prompt) in TRAINED_LAYOUTS and num_matching(prompt) < 5


@pytest.fixture(scope="module")
def benchmarks() -> dict[str, list[Prompt]]:
    sorted_prompts: dict[str, list[Prompt]] = {}
    for example in world.test_examples(25, 3):
        sorted_prompts.setdefault(example.prompt.metadata["benchmark"], []).append(example.prompt)
    return sorted_prompts


@pytest.mark.parametrize(
    ("source", "split"), [(PUBLIC, "train"), (CURATED, "curated"), (ROLLOUT, "rollout"), (DEV, "dev")]
)
def test_every_scene_belongs_to_the_split_of_its_data_set(source: Source, split: str) -> None:
    assert {split_of(decode_scene(prompt.metadata["scene"])) for prompt in prompts_of(source, 60)} == {split}


def test_rollout_prompts_never_ask_what_the_out_of_distribution_group_asks() -> None:
    prompts = prompts_of(ROLLOUT, 300)
    assert all(map(is_of_reinforcement_learning, prompts))
    assert {prompt.kind for prompt in prompts} == TRAINED_KINDS
    assert {layout(prompt) for prompt in prompts} == TRAINED_LAYOUTS
    assert max(map(num_matching, prompts)) == 4


def test_supervised_data_meets_every_kind_layout_and_count() -> None:
    prompts = prompts_of(PUBLIC, 300)
    assert {prompt.kind for prompt in prompts} == set(KINDS)
    assert {layout(prompt) for prompt in prompts} == {"3x3", "2x4", "3x4", "4x3"}
    assert max(map(num_matching, prompts)) >= 5


def test_benchmarks_and_their_groups(benchmarks: dict[str, list[Prompt]]) -> None:
    assert {name: len(prompts) for name, prompts in benchmarks.items()} == dict.fromkeys(BENCHMARKS, 25)
    for name, prompts in benchmarks.items():
        assert {prompt.metadata["group"] for prompt in prompts} == {BENCHMARKS[name][0]}
        assert {split_of(decode_scene(prompt.metadata["scene"])) for prompt in prompts} == {"test"}
    ids = [prompt.id for prompts in benchmarks.values() for prompt in prompts]
    assert len(set(ids)) == len(ids)


def test_settings_are_chosen_on_other_scenes_than_the_test_shows() -> None:
    splits = {
        split: [split_of(decode_scene(example.prompt.metadata["scene"])) for example in found]
        for split in ("dev", "test")
        for found in [list(world.test_examples(2, 3, split=split))]
    }
    assert splits == {split: [split] * 18 for split in ("dev", "test")}


def test_benchmarks_leave_the_training_distribution_exactly_where_they_say(
    benchmarks: dict[str, list[Prompt]],
) -> None:
    for prompts in benchmarks.values():
        expected = prompts[0].metadata["group"] == "in-distribution"
        assert {is_of_reinforcement_learning(prompt) for prompt in prompts} == {expected}
    for name, kind in (("lookup", "lookup"), ("adding", "sum"), ("neighbours", "neighbour"), ("columns", "column")):
        assert {prompt.kind for prompt in benchmarks[name]} == {kind}
        assert {layout(prompt) for prompt in benchmarks[name]} <= TRAINED_LAYOUTS
    assert {prompt.kind for prompt in benchmarks["crowded"]} == {"count", "sum"}
    assert {layout(prompt) for prompt in benchmarks["crowded"]} <= TRAINED_LAYOUTS
    assert min(map(num_matching, benchmarks["crowded"])) >= 5
    assert {layout(prompt) for prompt in benchmarks["layouts"]} == {"3x4", "4x3"}
    assert {prompt.kind for prompt in benchmarks["layouts"]} <= TRAINED_KINDS
    assert max(map(num_matching, benchmarks["layouts"])) < 5


def verdicts(examples: Iterable) -> Counter:
    counts: Counter = Counter()
    for example in examples:
        response = parse_response(example.completion)
        assert response.is_valid, response.reason
        counts[example.prompt.kind, bool(example.prompt.choices), verdict_of(response, example.prompt)] += 1
    return counts


def test_faithful_demonstrations_are_valid_and_correct_for_every_kind_and_with_choices() -> None:
    counts = verdicts(demonstrations("x", PUBLIC, FAITHFUL, 400, 4))
    assert {verdict for _, _, verdict in counts} == {"correct"}
    assert {(kind, has_choices) for kind, has_choices, _ in counts} == {
        (kind, has_choices) for kind in KINDS for has_choices in (False, True)
    }


def test_faithful_descriptions_are_exact() -> None:
    for example in demonstrations("x", ROLLOUT, FAITHFUL, 30, 5):
        caption = parse_response(example.completion).caption or ""
        assert described_fraction(example.prompt, caption) == 1
        assert count_items(caption) == len(decode_scene(example.prompt.metadata["scene"]).items)


def test_careless_demonstrations_are_valid_and_err_as_often_as_stated() -> None:
    """Right attributes: 1 − 0.08 − 0.12 of 27 × 150, within four standard deviations."""
    fidelity = Fidelity(wrong=0.08, vague=0.12, terse=0.3)
    examples = list(demonstrations("x", Source("train", ((3, 3),), KINDS), fidelity, 150, 6))
    fractions = [
        described_fraction(example.prompt, parse_response(example.completion).caption or "") or 0
        for example in examples
    ]
    assert abs(sum(fractions) / 150 - 0.8) < 4 * (0.8 * 0.2 / (27 * 150)) ** 0.5
    counts = verdicts(examples)
    wrong = sum(count for (_, _, verdict), count in counts.items() if verdict != "correct")
    assert 20 < wrong < 130


def test_choices_are_distinct_and_hold_the_answer_once(benchmarks: dict[str, list[Prompt]]) -> None:
    places = Counter()
    for prompt in [*benchmarks["choice"], *(p for p in prompts_of(PUBLIC, 300) if p.choices)]:
        assert len(set(prompt.choices)) == len(prompt.choices) == (2 if prompt.kind == "compare" else 4)
        assert prompt.question.endswith(
            " ".join(f"({letter}) {choice}" for letter, choice in zip("ABCD", prompt.choices, strict=False))
        )
        places[prompt.answer] += 1
    assert set(places) == set("ABCD")
    assert max(places.values()) < 0.45 * places.total()


def test_a_prompt_has_its_picture_and_its_scene() -> None:
    for prompt in prompts_of(ROLLOUT, 5):
        assert prompt.question.startswith("<image>") and prompt.question.count("<image>") == 1
        assert len(prompt.images) == 1 and (prompt.images[0].data or b"").startswith(b"\x89PNG")
    assert described_fraction(Prompt("p", "q"), "row 1: red circle 2.") is None


def test_data_follow_from_seed_and_name_and_a_longer_set_begins_like_a_shorter_one() -> None:
    first = list(demonstrations("rl", ROLLOUT, FAITHFUL, 12, 1))
    assert first == list(demonstrations("rl", ROLLOUT, FAITHFUL, 12, 1))
    assert first[:5] == list(demonstrations("rl", ROLLOUT, FAITHFUL, 5, 1))
    scenes = {example.prompt.metadata["scene"] for example in first}
    for other in (
        demonstrations("rl", ROLLOUT, FAITHFUL, 12, 2),
        demonstrations("alignment", ROLLOUT, FAITHFUL, 12, 1),
    ):
        assert not scenes & {example.prompt.metadata["scene"] for example in other}
    assert list(world.test_examples(2, 1)) == list(world.test_examples(2, 1))
    assert list(world.test_examples(2, 1)) != list(world.test_examples(2, 2))
