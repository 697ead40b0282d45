"""The discriminator over groups: teacher and rollouts, every view of them, on one tree per prompt."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prism.models import Discriminator, Mode, PromptEncoder, View, response_branch, views_of, visible_prompt
from prism.packing import Branch, PackedTrees, PromptTree, branch_scores, pack_trees
from prism.records import Prompt, Response
from prism.runtime.distributed import add_up, add_up_number
from prism.stages.shares import share_packs


@dataclass(frozen=True, slots=True)
class Contest:
    """One prompt, the teacher's response and the policy's; invalid ones among the latter have no branches."""

    prompt: Prompt
    teacher: Response
    students: tuple[Response, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ViewScores:
    """Scores of pairs in one view. A teacher's score is repeated for each of its rollouts."""

    teacher: Float[Tensor, "rollout"]
    student: Float[Tensor, "rollout"]


@dataclass(frozen=True, slots=True, eq=False)
class ContestScores:
    """Scores of a batch of contests by view; rollouts in the order of the contests, 0 where not valid."""

    views: Mapping[View, ViewScores]
    is_valid: Bool[Tensor, "rollout"]

    def student(self, view: View) -> Float[Tensor, "rollout"]:
        """The rollouts' scores in `view`, or in the only view of a discriminator of whole responses."""
        return (self.views.get(view) or self.views["response"]).student


class ContestBatch:
    """Contests packed for a discriminator of some mode, and the way from branch scores back to pairs.

    Every response, whoever wrote it, becomes branches by the same function. Branches of a contest with the same
    tokens are one: read twice, in two packs, they would differ by rounding, which normalising a group of equal
    texts would make an advantage of.
    """

    def __init__(self, encoder: PromptEncoder, contests: Sequence[Contest], token_budget: int, mode: Mode) -> None:
        self.view_names = views_of(mode)
        trees: list[PromptTree] = []
        teacher_rows: list[list[int]] = []
        student_rows: list[list[int]] = []
        is_valid: list[bool] = []
        views: list[int] = []
        contest_of: list[int] = []
        for number, contest in enumerate(contests):
            branches = _DistinctBranches(encoder, self.view_names)
            teacher = branches.rows_of(contest.teacher)
            for student in contest.students:
                # An invalid rollout has no branch; it borrows the teacher's row, and its score is masked.
                own = branches.rows_of(student) if student.is_valid else teacher
                teacher_rows.append([len(views) + row for row in teacher])
                student_rows.append([len(views) + row for row in own])
                is_valid.append(student.is_valid)
            trees.append(PromptTree(encoder.encode(visible_prompt(contest.prompt, mode)), tuple(branches.branches)))
            contest_of += [number] * len(branches.branches)
            views += branches.views
        # The balance loss is one of each pack: were they cut for the number of processes, it would depend on that.
        self.packs = pack_trees(trees, token_budget=token_budget)
        self.split_packs = _split_packs(self.packs, contest_of)
        """Those of `packs` that hold a part only of some contest."""
        self.num_branches = len(views)
        self.views = torch.tensor(views, dtype=torch.long)
        """The view of every branch, by its place in `view_names`."""
        size = (-1, len(self.view_names))
        self._teacher_rows = torch.tensor(teacher_rows, dtype=torch.long).view(size)
        self._student_rows = torch.tensor(student_rows, dtype=torch.long).view(size)
        self._is_valid = torch.tensor(is_valid, dtype=torch.bool)

    def pair_scores(self, scores: Float[Tensor, "branches"]) -> ContestScores:
        """`scores` of all branches as pairs. Differentiable."""
        views: dict[View, ViewScores] = {}
        for place, view in enumerate(self.view_names):
            student = torch.where(self._is_valid, scores[self._student_rows[:, place]], 0.0)
            views[view] = ViewScores(scores[self._teacher_rows[:, place]], student)
        return ContestScores(views, self._is_valid)


class _DistinctBranches:
    """The branches of one contest, each text of a view once; `views` holds the place of each one's view."""

    def __init__(self, encoder: PromptEncoder, view_names: Sequence[View]) -> None:
        self._encoder, self._view_names = encoder, view_names
        self._row_of: dict[tuple[int, tuple[int, ...]], int] = {}
        self.branches: list[Branch] = []
        self.views: list[int] = []

    def rows_of(self, response: Response) -> list[int]:
        """The rows of the views of `response`, among those of the contest."""
        return [
            self._row(place, response_branch(self._encoder, response, view))
            for place, view in enumerate(self._view_names)
        ]

    def _row(self, place: int, branch: Branch) -> int:
        key = place, tuple(branch.token_ids.tolist())
        if key not in self._row_of:
            self._row_of[key] = len(self.branches)
            self.branches.append(branch)
            self.views.append(place)
        return self._row_of[key]


def _split_packs(packs: Sequence[PackedTrees], contest_of: Sequence[int]) -> list[PackedTrees]:
    sizes = Counter(contest_of)
    held = [Counter(contest_of[row] for row in packed.rows.tolist()) for packed in packs]
    return [packed for packed, own in zip(packs, held, strict=True) if any(own[one] < sizes[one] for one in own)]


def score(
    discriminator: Discriminator, batch: ContestBatch, *, is_last_pass: bool = False
) -> Float[Tensor, "branches"]:
    """Scores of all branches, without a gradient. `is_last_pass` says that nothing else is done with the batch."""
    return _score(discriminator, batch, batch.packs, is_last_pass=is_last_pass)


@torch.no_grad()
def _score(
    discriminator: Discriminator, batch: ContestBatch, packs: Sequence[PackedTrees], *, is_last_pass: bool = False
) -> Tensor:
    """Those of the branches in `packs`, 0 of others."""
    scores = torch.zeros(batch.num_branches)
    for part in share_packs(packs, is_last_pass=is_last_pass):
        found = branch_scores(discriminator, part.item, views=batch.views)[0]
        if part.counts:
            scores[part.item.rows] = found
    return add_up(scores)


@dataclass(frozen=True, slots=True, eq=False)
class Backpropagated:
    """The scores of all branches that the gradient was taken at, and the sum of `pack_loss`."""

    scores: Float[Tensor, "branches"]
    pack_loss: float


def score_and_backpropagate(
    discriminator: Discriminator,
    batch: ContestBatch,
    loss: Callable[[ContestScores], Tensor],
    pack_loss: Callable[[PackedTrees, tuple[Tensor, ...]], Tensor] | None = None,
) -> Backpropagated:
    """Adds the gradient of `loss` to the discriminator's parameters, one pack in memory at a time.

    `loss` has to be a sum over pairs, each of which counts by its own two scores alone, over a number that no score
    changes: paper Eq. 2 is one, `discriminator_loss` with a `teacher_anchor` is not. So a pack that holds whole
    contests is scored and carries its share of the gradient back at once. Where the budget of tokens has split a
    contest, its packs are scored beforehand and then run again. Exact, and peak memory is one pack's. `pack_loss` adds
    a loss on a pack's router logits.
    """
    known = _score(discriminator, batch, batch.split_packs)
    scores, added = torch.zeros(batch.num_branches), 0.0
    for part in share_packs(batch.packs):
        found, router_logits = branch_scores(
            discriminator, part.item, views=batch.views, with_router=pack_loss is not None
        )
        rows = part.item.rows
        leaf = known.index_copy(0, rows, found.detach()).requires_grad_()
        [gradient] = torch.autograd.grad(loss(batch.pair_scores(leaf)), leaf)
        total = part.weight * (found * gradient[rows]).sum()
        if pack_loss is not None and router_logits is not None:
            own = part.weight * pack_loss(part.item, router_logits)
            added += float(own.detach())
            total = total + own
        total.backward()
        if part.counts:
            scores[rows] = found.detach()
    return Backpropagated(add_up(scores), add_up_number(added))
