"""The warm-up's held-out measure, and that a few of its steps teach what they should."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from prism.models import Discriminator, PromptEncoder
from prism.packing import Pixels
from prism.rewards import parse_response
from prism.stages.game import game_loss, train_discriminator
from prism.stages.rollouts import parse_rollout
from prism.stages.scoring import Contest, ContestBatch, ContestScores, score
from prism.stages.warmup import measure_heldout

Make = Callable[..., Any]
TEXT = "<caption>{}</caption><think>{}</think><answer>{}</answer>"


@pytest.fixture
def contests(make_prompt: Make, make_rollout: Make) -> list[Contest]:
    return [
        Contest(
            make_prompt(index, with_image=index != 1),
            parse_response(TEXT.format("row 1: red circle 2.", "1. one", index)),
            (parse_rollout(make_rollout(TEXT.format("some thing ?", "1. it is 2", index))),),
        )
        for index in range(3)
    ]


def test_heldout_measures_by_hand(
    discriminator: Discriminator, encoder: PromptEncoder, contests: list[Contest]
) -> None:
    batch = ContestBatch(encoder, contests, 4096, discriminator.mode)
    pairs = batch.pair_scores(score(discriminator, batch))
    expected: dict[str, Any] = {"heldout/count": 3}
    for view, scores in pairs.views.items():
        gaps = (scores.teacher - scores.student).tolist()
        expected[f"heldout/{view}_accuracy"] = pytest.approx(sum(gap > 0 for gap in gaps) / 3)
        expected[f"heldout/{view}_gap"] = pytest.approx(sum(gaps) / 3, abs=1e-6)
    assert len(expected) == 1 + 2 * len(discriminator.views)
    assert measure_heldout(discriminator, batch) == expected


def test_the_heldout_pass_keeps_no_pixels(
    encoder: PromptEncoder, make_discriminator: Make, contests: list[Contest], monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[Pixels] = []
    monkeypatch.setattr(Pixels, "release", lambda pixels: released.append(pixels))
    batch = ContestBatch(encoder, contests, 4096, "moe")
    measure_heldout(make_discriminator("moe"), batch)
    assert released and set(released) == {pixels for packed in batch.packs for pixels in packed.pixels}


def test_warm_up_and_alignment_read_one_response_alike(
    discriminator: Discriminator, encoder: PromptEncoder, make_prompt: Make, make_rollout: Make
) -> None:
    """A policy that answers like the teacher: no branch and no token tells them apart in the warm-up either."""
    text = TEXT.format("row 1: red circle 2.", "1. one", "1")
    contest = Contest(make_prompt(0), parse_response(text), (parse_rollout(make_rollout(text)),))
    batch = ContestBatch(encoder, [contest], 4096, discriminator.mode)
    assert score(discriminator, batch).abs().min() > 1e-2
    metrics = measure_heldout(discriminator, batch)
    for view in discriminator.views:
        assert metrics[f"heldout/{view}_gap"] == pytest.approx(0, abs=1e-5)


def test_a_few_steps_tell_a_careless_writer_from_the_teacher(
    discriminator: Discriminator, encoder: PromptEncoder, contests: list[Contest]
) -> None:
    batch = ContestBatch(encoder, contests, 4096, discriminator.mode)
    torch.nn.init.zeros_(discriminator.head.weight)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-3)

    def learn() -> ContestScores:
        scores, _ = train_discriminator(discriminator, batch, regularization=0.0, balance_coefficient=0.01)
        optimizer.step()
        optimizer.zero_grad()
        return batch.pair_scores(scores)

    assert game_loss(learn()).views == dict.fromkeys(discriminator.views, pytest.approx(math.log(2)))
    for _ in range(5):
        learn()
    metrics = measure_heldout(discriminator, batch)
    assert [metrics[f"heldout/{view}_accuracy"] for view in discriminator.views] == [1] * len(discriminator.views)
