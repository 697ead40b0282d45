"""Length taken out of the scores of valid rollouts, view by view."""

import pytest
import torch

from prism.rewards import parse_response
from prism.stages.length import without_length
from prism.stages.scoring import ContestScores, ViewScores

TEXT = "<caption>{}</caption><think>{}</think><answer>{}</answer>"
TEACHER = torch.tensor([5.0, 5.0, 5.0, 5.0])


def test_each_view_is_corrected_by_its_own_length_and_nothing_else_changes() -> None:
    """Descriptions of 2, 4 and 6 characters score 1, 2 and 3: all length. The reasonings are equally long."""
    responses = [
        parse_response(TEXT.format("aa", "x", "1")),
        parse_response("no format"),
        parse_response(TEXT.format("aaaa", "y", "1")),
        parse_response(TEXT.format("aaaaaa", "z", "1")),
    ]
    perception, reasoning = torch.tensor([1.0, 0.0, 2.0, 3.0]), torch.tensor([0.3, 0.0, -0.1, 0.4])
    pairs = ContestScores(
        {"perception": ViewScores(TEACHER, perception), "reasoning": ViewScores(TEACHER, reasoning)},
        torch.tensor([True, False, True, True]),
    )
    found = without_length(pairs, responses, torch.tensor([0, 0, 0, 0]))
    assert found.views["perception"].student.tolist() == pytest.approx([2, 0, 2, 2])
    assert torch.equal(found.views["reasoning"].student, reasoning)
    assert all(scores.teacher is TEACHER for scores in found.views.values())
    assert found.is_valid is pairs.is_valid and perception.tolist() == [1, 0, 2, 3]


def test_without_a_valid_rollout_there_is_nothing_to_correct() -> None:
    scores = torch.zeros(1)
    pairs = ContestScores({"response": ViewScores(torch.ones(1), scores)}, torch.tensor([False]))
    found = without_length(pairs, [parse_response("no format")], torch.tensor([0]))
    assert torch.equal(found.student("perception"), scores)
