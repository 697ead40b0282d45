"""The discriminator over groups: teacher and rollouts, perception and reasoning, on one tree per prompt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prism.models import Discriminator, PromptEncoder, response_branch
from prism.packing import Branch, PackedTrees, PromptTree, branch_scores, pack_trees
from prism.records import Prompt, Response

BRANCHES = ("perception", "reasoning")


@dataclass(frozen=True, slots=True)
class Contest:
    """One prompt, the teacher's response and the policy's; invalid ones among the latter have no branches."""

    prompt: Prompt
    teacher: Response
    students: tuple[Response, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ContestScores:
    """Scores of a batch of contests; rollouts in the order of the contests, 0 where not valid.

    A teacher's score is repeated for each of its rollouts, so that rows are pairs.
    """

    teacher_perception: Float[Tensor, "rollout"]
    teacher_reasoning: Float[Tensor, "rollout"]
    perception: Float[Tensor, "rollout"]
    reasoning: Float[Tensor, "rollout"]
    is_valid: Bool[Tensor, "rollout"]


class ContestBatch:
    """Contests packed for the discriminator, and the way from branch scores back to pairs."""

    def __init__(self, encoder: PromptEncoder, contests: Sequence[Contest], token_budget: int) -> None:
        trees: list[PromptTree] = []
        self._teacher_rows: list[int] = []
        self._student_rows: list[int] = []
        self._is_valid: list[bool] = []
        num_rows = 0
        for contest in contests:
            branches: list[Branch] = []
            teacher_row = num_rows
            branches += [response_branch(encoder, contest.teacher, kind) for kind in BRANCHES]
            for student in contest.students:
                self._teacher_rows.append(teacher_row)
                self._is_valid.append(student.is_valid)
                self._student_rows.append(num_rows + len(branches))
                if student.is_valid:
                    branches += [response_branch(encoder, student, kind) for kind in BRANCHES]
            trees.append(PromptTree(encoder.encode(contest.prompt), tuple(branches)))
            num_rows += len(branches)
        self.packs = pack_trees(trees, token_budget=token_budget)
        self.num_branches = num_rows

    def pair_scores(self, scores: Float[Tensor, "branches"]) -> ContestScores:
        """`scores` of all branches as pairs. Differentiable."""
        is_valid = torch.tensor(self._is_valid)
        teacher = torch.tensor(self._teacher_rows)
        # An invalid rollout has no branch; it borrows the teacher's row, and its score is masked.
        student = torch.where(is_valid, torch.tensor(self._student_rows), teacher)
        masked = [torch.where(is_valid, scores[student + offset], 0.0) for offset in (0, 1)]
        return ContestScores(scores[teacher], scores[teacher + 1], masked[0], masked[1], is_valid)


@torch.no_grad()
def score(discriminator: Discriminator, batch: ContestBatch) -> Float[Tensor, "branches"]:
    """Scores of all branches, without a gradient."""
    scores = torch.zeros(batch.num_branches)
    for packed in batch.packs:
        scores[packed.rows] = branch_scores(discriminator, packed)[0].float()
    return scores


def backpropagate(
    discriminator: Discriminator,
    batch: ContestBatch,
    scores: Float[Tensor, "branches"],
    loss: Callable[[ContestScores], Tensor],
    pack_loss: Callable[[PackedTrees, tuple[Tensor, ...]], Tensor] | None = None,
) -> None:
    """Adds the gradient of `loss` to the discriminator's parameters, one pack in memory at a time.

    The loss couples scores of different packs, but only through the scores: its gradient with
    respect to them is taken at `scores`, which the discriminator gave just before, and each pack is
    then run again and carries its share back. Exact, and peak memory is one pack's. `pack_loss`
    adds a loss on a pack's router logits.
    """
    leaf = scores.detach().requires_grad_()
    [score_gradient] = torch.autograd.grad(loss(batch.pair_scores(leaf)), leaf)
    for packed in batch.packs:
        pack_scores, router_logits = branch_scores(discriminator, packed, with_router=pack_loss is not None)
        total = (pack_scores * score_gradient[packed.rows]).sum()
        if pack_loss is not None and router_logits is not None:
            total = total + pack_loss(packed, router_logits)
        total.backward()
