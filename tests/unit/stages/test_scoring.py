"""The discriminator over packed contests against one forward per branch, in one graph."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from prism.models import Discriminator, PromptEncoder, response_branch, upcycle
from prism.objectives import discriminator_loss
from prism.records import Prompt, Response, Rollout
from prism.rewards import parse_response
from prism.stages.rollouts import parse_rollout
from prism.stages.scoring import Contest, ContestBatch, ContestScores, backpropagate, score

Make = Callable[..., Any]
TEXT = "<caption>{}</caption><think>{}</think><answer>{}</answer>"


def response(caption: str, think: str, answer: str) -> Response:
    return parse_response(TEXT.format(caption, think, answer))


TEACHER = response("row 1: red circle 2, blue star 3.", "1. red circle 2 makes 1.", "1")
INVALID = parse_response("red")


@pytest.fixture
def contests(make_prompt: Make) -> list[Contest]:
    """Seven rollouts, two of them invalid; the second prompt has no image, the third no valid rollout."""
    return [
        Contest(
            make_prompt(0),
            TEACHER,
            (response("row 1: some thing ?.", "1. none", "0"), INVALID, response("red", "2", "2")),
        ),
        Contest(
            make_prompt(1, with_image=False),
            response("a", "1. b\n2. c", "3"),
            (response("a b c d", "e", "f"), response("a", "1. b\n2. c", "4")),
        ),
        Contest(make_prompt(2), response("blue star 4", "1. d", "5"), (INVALID,)),
        Contest(make_prompt(3), response("row 1: red star 1.", "1. x", "5"), (response("blue", "1. x", "5"),)),
    ]


IS_VALID = torch.tensor([True, False, True, True, True, False, True])


@pytest.fixture
def direct_scores(encoder: PromptEncoder, hidden_states: Make) -> Callable[..., ContestScores]:
    """Every score from a forward of its own, all in one graph."""

    def one(discriminator: Discriminator, prompt: Prompt, given: Response, kind: Any) -> Tensor:
        hidden = hidden_states(discriminator.model, encoder.encode(prompt), response_branch(encoder, given, kind))
        return hidden[-1] @ discriminator.head.weight[0]

    def run(discriminator: Discriminator, contests: Sequence[Contest]) -> ContestScores:
        columns: dict[tuple[str, str], list[Tensor]] = {}
        for contest in contests:
            for kind in ("perception", "reasoning"):
                teacher = one(discriminator, contest.prompt, contest.teacher, kind)
                for student in contest.students:
                    columns.setdefault(("teacher", kind), []).append(teacher)
                    columns.setdefault(("student", kind), []).append(
                        one(discriminator, contest.prompt, student, kind) if student.is_valid else torch.zeros(())
                    )
        stacked = {key: torch.stack(values) for key, values in columns.items()}
        is_valid = torch.tensor([student.is_valid for contest in contests for student in contest.students])
        return ContestScores(
            stacked["teacher", "perception"],
            stacked["teacher", "reasoning"],
            stacked["student", "perception"],
            stacked["student", "reasoning"],
            is_valid,
        )

    return run


def loss_of(pairs: ContestScores) -> Tensor:
    """As in alignment, with a regulariser large enough to be seen."""
    return discriminator_loss(
        pairs.teacher_perception,
        pairs.perception,
        pairs.teacher_reasoning,
        pairs.reasoning,
        weights=pairs.is_valid,
        regularization=0.1,
    ).loss


@pytest.mark.parametrize("token_budget", [60, 110, 4096])
def test_scores_are_paired_as_from_forwards_of_their_own(
    discriminator: Discriminator,
    encoder: PromptEncoder,
    contests: list[Contest],
    direct_scores: Callable[..., ContestScores],
    token_budget: int,
) -> None:
    batch = ContestBatch(encoder, contests, token_budget)
    assert (len(batch.packs) > 1) == (token_budget < 4096)
    assert batch.num_branches == 2 * (len(contests) + 5)
    pairs = batch.pair_scores(score(discriminator, batch))
    with torch.no_grad():
        expected = direct_scores(discriminator, contests)
    assert torch.equal(pairs.is_valid, IS_VALID)
    for name in ("teacher_perception", "teacher_reasoning", "perception", "reasoning"):
        torch.testing.assert_close(getattr(pairs, name), getattr(expected, name), atol=1e-5, rtol=0)
    assert (pairs.perception[~IS_VALID] == 0).all() and (pairs.reasoning[~IS_VALID] == 0).all()
    assert pairs.teacher_perception[:3].unique().numel() == 1


@pytest.mark.parametrize("token_budget", [60, 110, 4096])
def test_gradient_equals_that_of_one_graph_over_all_branches(
    discriminator: Discriminator,
    encoder: PromptEncoder,
    contests: list[Contest],
    direct_scores: Callable[..., ContestScores],
    take_gradients: Make,
    assert_same_gradients: Make,
    token_budget: int,
) -> None:
    loss_of(direct_scores(discriminator, contests)).backward()
    expected = take_gradients(discriminator)
    batch = ContestBatch(encoder, contests, token_budget)
    scores = score(discriminator, batch)
    assert not scores.requires_grad
    backpropagate(discriminator, batch, scores, loss_of)
    assert_same_gradients(take_gradients(discriminator), expected)


def test_a_loss_on_the_router_adds_its_gradient(
    make_policy: Make,
    encoder: PromptEncoder,
    contests: list[Contest],
    take_gradients: Make,
    assert_same_gradients: Make,
) -> None:
    """Twice the sum of all router logits squared, besides a game whose loss is 0."""
    discriminator = Discriminator(upcycle(make_policy(1)).model)
    batch = ContestBatch(encoder, contests, 110)
    seen: list[int] = []

    def router_loss(packed: Any, router_logits: tuple[Tensor, ...]) -> Tensor:
        seen.append(len(packed))
        assert all(logits.shape == (len(packed), 4) for logits in router_logits) and len(router_logits) == 2
        return torch.stack([logits.square().sum() for logits in router_logits]).sum() / 100

    backpropagate(discriminator, batch, score(discriminator, batch), lambda pairs: 0 * loss_of(pairs), router_loss)
    together = take_gradients(discriminator)
    assert seen == [len(packed) for packed in batch.packs]
    for packed in batch.packs:
        backpropagate(
            discriminator,
            _Only(batch, packed),  # type: ignore[arg-type]
            score(discriminator, batch),
            lambda pairs: 0 * loss_of(pairs),
            router_loss,
        )
    assert_same_gradients(take_gradients(discriminator), together)
    gate = "model.language_model.layers.0.mlp.gate.weight"
    assert together[gate].abs().max() > 0


class _Only:
    """One pack of a batch."""

    def __init__(self, batch: ContestBatch, packed: Any) -> None:
        self.packs = [packed]
        self.pair_scores = batch.pair_scores


def test_an_all_invalid_batch_leaves_only_the_regulariser(
    discriminator: Discriminator, encoder: PromptEncoder, make_prompt: Make, take_gradients: Make
) -> None:
    batch = ContestBatch(encoder, [Contest(make_prompt(0), TEACHER, (INVALID, INVALID))], 4096)
    scores = score(discriminator, batch)
    assert batch.num_branches == 2
    pairs = batch.pair_scores(scores)
    assert float(loss_of(pairs)) == pytest.approx(0.1 * float(scores.square().sum()) / 4)
    backpropagate(discriminator, batch, scores, loss_of)
    assert all(gradient.isfinite().all() for gradient in take_gradients(discriminator).values())


@pytest.mark.parametrize("blank", ["", " ", "\n"])
def test_teacher_and_rollout_of_one_text_are_read_alike(
    discriminator: Discriminator, encoder: PromptEncoder, make_prompt: Make, make_rollout: Make, blank: str
) -> None:
    """Blanks at the edges of the parts differ between the two; nothing that is scored does."""
    plain = TEXT.format("row 1: red circle 2.", "1. one", "1")
    spaced = plain.replace("><", f">{blank}<").replace(".</", f".{blank}</")
    teacher, student = parse_response(plain), parse_rollout(make_rollout(spaced))
    for kind in ("perception", "reasoning"):
        own, other = (response_branch(encoder, given, kind) for given in (teacher, student))
        assert torch.equal(own.token_ids, other.token_ids)
        assert own.token_ids[-1] == encoder.end_token_id
    batch = ContestBatch(encoder, [Contest(make_prompt(0), teacher, (student,))], 4096)
    pairs = batch.pair_scores(score(discriminator, batch))
    torch.testing.assert_close(pairs.teacher_perception, pairs.perception, atol=1e-5, rtol=0)
    torch.testing.assert_close(pairs.teacher_reasoning, pairs.reasoning, atol=1e-5, rtol=0)


def test_a_rollout_reads_alike_however_it_was_tokenised(encoder: PromptEncoder) -> None:
    """A policy may spell a word in pieces that the tokenizer would not choose."""
    text = TEXT.format("red circle", "1. one", "1")
    letters = [token for letter in text for token in encoder.completion_ids(letter)[:-1]]
    assert len(letters) > len(encoder.completion_ids(text))
    spelled = Rollout(0, (*letters, encoder.end_token_id), encoder.decode([*letters, encoder.end_token_id]), True)
    branches = [
        response_branch(encoder, given, "reasoning") for given in (parse_response(text), parse_rollout(spelled))
    ]
    assert torch.equal(branches[0].token_ids, branches[1].token_ids)
