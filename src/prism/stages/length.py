"""Length taken out of the rollouts' scores before they become advantages, where a recipe asks for it."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from prism.models import view_text
from prism.objectives import length_corrected
from prism.records import Response
from prism.stages.scoring import ContestScores, ViewScores


def without_length(
    pairs: ContestScores, responses: Sequence[Response], group_ids: Int[Tensor, "rollout"]
) -> ContestScores:
    """`pairs` with `length_corrected` scores of the valid rollouts, each view by the characters of its own text.

    For the advantages alone: the discriminator is trained on, and measured by, the scores as they are.
    """
    is_valid = pairs.is_valid
    valid = [response for response in responses if response.is_valid]
    views = {}
    for view, scores in pairs.views.items():
        lengths = torch.tensor([len(view_text(response, view)) for response in valid])
        student = scores.student.clone()
        student[is_valid] = length_corrected(scores.student[is_valid], lengths, group_ids[is_valid])
        views[view] = ViewScores(scores.teacher, student)
    return ContestScores(views, is_valid)
