"""Positions against the model's own `get_rope_index`, and by hand."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen3VLConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLModel

from prism.errors import DataError
from prism.packing.positions import mrope_positions

IMAGE, MERGE = 9, 2


@pytest.fixture(scope="module")
def model() -> Qwen3VLModel:
    text = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "head_dim": 8}
    vision = {"depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 1, "patch_size": 4}
    vision |= {"spatial_merge_size": MERGE, "out_hidden_size": 8, "deepstack_visual_indexes": [0]}
    with torch.device("meta"):
        return Qwen3VLModel(
            Qwen3VLConfig(text_config=text | {"num_attention_heads": 1, "num_key_value_heads": 1}, vision_config=vision)
        )


def prompt(grids: list[tuple[int, int]], gaps: list[int]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Text of `gaps[i]` tokens before image i and `gaps[-1]` after the last; grids in merged rows, columns."""
    ids = [1] * gaps[0]
    for (rows, columns), gap in zip(grids, gaps[1:], strict=True):
        ids += [IMAGE] * (rows * columns) + [2] * gap
    thw = torch.tensor([[1, rows * MERGE, columns * MERGE] for rows, columns in grids])
    return torch.tensor(ids, dtype=torch.long), thw if grids else None


@given(st.data())
def test_equal_to_the_models_own(model: Any, data: st.DataObject) -> None:
    grids = data.draw(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=3))
    # The model's own function takes two touching images for one, so text lies between them.
    gaps = data.draw(st.lists(st.integers(1, 5), min_size=len(grids) + 1, max_size=len(grids) + 1))
    ids, thw = prompt(grids, gaps)
    expected, delta = model.get_rope_index(ids[None], (ids == IMAGE).int()[None], image_grid_thw=thw)
    positions, following = mrope_positions(ids, thw, image_token_id=IMAGE, merge_size=MERGE)
    assert torch.equal(positions, expected[:, 0])
    assert following == int(delta) + len(ids)


def test_by_hand() -> None:
    ids, thw = prompt([(2, 3)], [2, 1])
    positions, following = mrope_positions(ids, thw, image_token_id=IMAGE, merge_size=MERGE)
    assert positions.tolist() == [
        [0, 1, 2, 2, 2, 2, 2, 2, 5],
        [0, 1, 2, 2, 2, 3, 3, 3, 5],
        [0, 1, 2, 3, 4, 2, 3, 4, 5],
    ]
    assert following == 6


def test_touching_images_stay_two() -> None:
    ids, thw = prompt([(1, 2), (2, 1)], [1, 0, 1])
    positions, following = mrope_positions(ids, thw, image_token_id=IMAGE, merge_size=MERGE)
    assert positions.tolist() == [[0, 1, 1, 3, 3, 5], [0, 1, 1, 3, 4, 5], [0, 1, 2, 3, 3, 5]]
    assert following == 6


@pytest.mark.parametrize(
    ("ids", "grids", "message"),
    [
        ([1, 9, 9, 9, 2], [[1, 4, 4]], "image 1 needs 4"),
        ([1, 9, 9, 9, 9, 9, 2], [[1, 4, 4]], "5 placeholder tokens, its 1 images need 4"),
        ([1, 9, 2], None, "1 placeholder tokens, its 0 images need 0"),
        ([9, 9, 1, 9, 9], [[1, 4, 4]], "4 adjacent"),
    ],
)
def test_disagreement_is_an_error(ids: list[int], grids: list[list[int]] | None, message: str) -> None:
    thw = None if grids is None else torch.tensor(grids)
    with pytest.raises(DataError, match=message):
        mrope_positions(torch.tensor(ids), thw, image_token_id=IMAGE, merge_size=MERGE)
