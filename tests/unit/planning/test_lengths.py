"""Lengths counted in data that are here, or given, and never made up."""

import json
from pathlib import Path
from typing import Any

import pytest

from prism.config import Recipe, load_recipe
from prism.errors import ConfigError
from prism.models import PromptEncoder
from prism.planning.lengths import Lengths, Row, find_lengths
from prism.stages.workspace import SHIPPED_BASE

ROOT = Path(__file__).parents[3]
DEMO, PAPER = ROOT / "recipes/tiny/demo.toml", ROOT / "recipes/paper/qwen3-vl-4b.toml"
RESPONSE = "<caption>A red circle.</caption><think>There is one.</think><answer>1</answer>"


@pytest.fixture(scope="module")
def world() -> Lengths:
    return find_lengths(load_recipe(DEMO))


def paper(*overrides: str) -> Recipe:
    return load_recipe(PAPER, overrides)


def test_the_world_is_counted_as_training_reads_it(world: Lengths) -> None:
    assert set(world.rows) == {"sft", "alignment", "rl", "test"}
    assert world.counts["sft"] == 3300
    assert len(world.rows["alignment"]) == 64
    # Images of the world are 96 pixels and more wide: at least 3 × 3 merged tokens of 4 patches.
    assert all(row.images and row.images[0] % 4 == 0 for row in world.rows["rl"])
    assert all(row.caption + row.reasoning < row.response + 4 for row in world.rows["alignment"])
    assert world.source.startswith("counted in the first 64 rows of sft, alignment, rl, test")


def test_a_file_is_counted_with_the_bases_processor(tmp_path: Path) -> None:
    encoder = PromptEncoder.from_pretrained(SHIPPED_BASE)
    row = {"messages": [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": RESPONSE}]}
    (tmp_path / "sft.jsonl").write_text(3 * (json.dumps(row) + "\n"))
    recipe = Recipe.model_validate(
        {
            "name": "mine",
            "data": {"type": "files", "sft": (tmp_path / "sft.jsonl",)},
            "base": {"type": "tiny"},
            "sft": {"num_epochs": 2.0, "batch_size": 2},
        }
    )
    found = find_lengths(recipe)
    ids: Any = encoder.tokenizer.apply_chat_template(
        [{"role": "user", "content": "How many?"}], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    expected: Any = Row(
        text=len(ids["input_ids"]),
        caption=len(encoder.tokenizer.encode("A red circle.")) + 1,
        reasoning=len(encoder.tokenizer.encode("There is one.\n<answer>1</answer>")) + 1,
        response=len(encoder.tokenizer.encode(RESPONSE)) + 1,
    )
    assert found.rows["sft"] == [expected] * 3
    assert found.counts["sft"] == 3


def test_what_cannot_be_counted_has_to_be_given() -> None:
    with pytest.raises(ConfigError) as caught:
        find_lengths(paper("plan=none"))
    missing = "plan.prompt_tokens, plan.images_per_prompt, plan.caption_tokens, plan.reasoning_tokens, plan.image_size"
    assert str(caught.value).endswith(f"give what prompts and responses are like: {missing}")
    with pytest.raises(ConfigError, match=r"like: plan\.caption_tokens$"):
        find_lengths(paper("plan.caption_tokens=none"))


def test_image_tokens_follow_from_the_processors_budget() -> None:
    # 800 × 600 is fitted to 25 × 19 cells of 32 pixels, each of 2 × 2 patches.
    found = find_lengths(paper())
    assert found.rows["rl"][0].images == (25 * 19 * 4,)
    assert found.prompt(found.rows["rl"][0]) == 150 + 25 * 19
    # At least 65,536 pixels: 64 cells.
    assert find_lengths(paper("plan.image_size=[32, 32]")).rows["rl"][0].images == (64 * 4,)
    large = [find_lengths(paper(f"plan.image_size=[{side}, {side}]", "max_pixels=65536")) for side in (256, 1000)]
    assert [lengths.rows["rl"][0].images for lengths in large] == [(256,), (256,)]
    assert find_lengths(paper("plan.images_per_prompt=0")).rows["rl"][0].images == ()


def test_prompts_that_would_be_rejected_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"have 4896 tokens with their images, more than max_prompt_tokens \(2048\)"):
        find_lengths(paper("plan.images_per_prompt=10", "plan.prompt_tokens=146"))


def test_rollouts_are_as_long_as_the_teachers_unless_given() -> None:
    assert [row.response for row in find_lengths(paper()).rollouts] == [1500]
    longer = find_lengths(paper("plan.rollout_tokens=3000")).rollouts[0]
    assert (longer.caption, longer.reasoning, longer.response) == (600, 2400, 3000)


def test_no_rollout_is_longer_than_its_limit() -> None:
    [row] = find_lengths(paper()).draw_rollouts(1, 750)
    assert (row.caption, row.reasoning, row.response) == (150, 600, 750)


def test_what_is_given_goes_before_what_is_counted(world: Lengths) -> None:
    found = find_lengths(load_recipe(DEMO, ["plan.caption_tokens=7", "plan.num_test=11"]))
    assert {row.caption for row in found.rows["alignment"]} == {7}
    assert [row.text for row in found.rows["rl"]] == [row.text for row in world.rows["rl"]]
    assert found.counts == {**world.counts, "test": 11}


def test_rows_are_drawn_evenly(world: Lengths) -> None:
    rows = world.rows["rl"]
    assert world.draw("rl", 4) == [rows[0], rows[16], rows[32], rows[48]]
    assert world.draw("rl", 65) == [*rows, rows[0]]
