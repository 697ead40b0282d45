"""Length taken out of scores: by hand, and what must hold of any result."""

import pytest
import torch

from prism.objectives import length_corrected


def test_length_is_taken_out_by_hand():
    # Inside both groups the score rises by ½ per token, between them by another slope that does not count.
    scores = torch.tensor([1.0, 2.0, 10.0, 11.0])
    lengths, groups = torch.tensor([2, 4, 30, 32]), torch.tensor([7, 7, 3, 3])
    assert length_corrected(scores, lengths, groups).tolist() == pytest.approx([1.5, 1.5, 10.5, 10.5])


def test_what_remains_is_uncorrelated_and_groups_keep_their_mean():
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(8).repeat_interleave(6)
    lengths = torch.randint(5, 50, (48,), generator=generator).float()
    scores = torch.randn(48, generator=generator) + 0.1 * lengths + groups
    corrected = length_corrected(scores, lengths, groups)
    for group in range(8):
        assert float(corrected[groups == group].mean()) == pytest.approx(
            float(scores[groups == group].mean()), abs=1e-5
        )
    away = lengths - torch.stack([lengths[groups == group].mean() for group in groups])
    assert float((away * corrected).sum()) == pytest.approx(0, abs=1e-3)
    # Whatever is linear in the length before is gone after.
    torch.testing.assert_close(
        length_corrected(scores + 3 * lengths, lengths, groups) - corrected, 3 * (lengths - away)
    )
    order = torch.randperm(48, generator=generator)
    torch.testing.assert_close(length_corrected(scores[order], lengths[order], groups[order]), corrected[order])


def test_equal_lengths_change_nothing():
    scores = torch.tensor([0.3, -1.2, 0.7])
    assert torch.equal(length_corrected(scores, torch.tensor([9, 9, 4]), torch.tensor([0, 0, 1])), scores)
    assert length_corrected(torch.zeros(0), torch.zeros(0), torch.zeros(0, dtype=torch.long)).shape == (0,)


@pytest.mark.parametrize(
    ("scores", "lengths", "group_ids", "at_fault"),
    [
        (torch.ones(2), torch.ones(3), torch.tensor([0, 0]), "lengths"),
        (torch.ones(2), torch.ones(2), torch.tensor([0, 0, 1]), "group_ids"),
        (torch.ones(2), torch.ones(2), torch.tensor([0.0, 1.0]), "group_ids"),
        (torch.tensor([1, 2]), torch.ones(2), torch.tensor([0, 0]), "scores"),
    ],
)
def test_what_does_not_fit_is_named(
    scores: torch.Tensor, lengths: torch.Tensor, group_ids: torch.Tensor, at_fault: str
):
    with pytest.raises(ValueError, match=at_fault):
        length_corrected(scores, lengths, group_ids)
