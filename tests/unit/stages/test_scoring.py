"""The discriminator over packed contests, in every mode, against one forward per prompt and branch."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from prism.models import Discriminator, Mode, PromptEncoder, View, response_branch
from prism.records import Prompt, Response, Rollout
from prism.rewards import parse_response
from prism.stages.rollouts import parse_rollout
from prism.stages.scoring import Contest, ContestBatch, ContestScores, ViewScores, score, score_and_backpropagate

Make = Callable[..., Any]
TEXT = "<caption>{}</caption><think>{}</think><answer>{}</answer>"


def response(caption: str, think: str, answer: str) -> Response:
    return parse_response(TEXT.format(caption, think, answer))


TEACHER = response("row 1: red circle 2, blue star 3.", "1. red circle 2 makes 1.", "1")
INVALID = parse_response("red")


@pytest.fixture
def contests(make_prompt: Make) -> list[Contest]:
    """Eight rollouts, two of them invalid; the second prompt has no image, the third no valid rollout, the last
    two images."""
    two_images = replace(
        make_prompt(4), question="Is <image>like<image>?", images=(*make_prompt(5).images, *make_prompt(6).images)
    )
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
        Contest(two_images, response("blue star 4", "1. d\n2. e", "no"), (response("red star", "1. f", "yes"),)),
    ]


IS_VALID = torch.tensor([True, False, True, True, True, False, True, True])
BUDGETS = ("tight", "middle", "ample")


def pack(encoder: PromptEncoder, contests: Sequence[Contest], mode: Mode, budget: str) -> ContestBatch:
    """Packed with a budget that the longest prompt and branch just fill, with twice that, or into one sequence."""
    whole = ContestBatch(encoder, contests, 100_000, mode)
    assert len(whole.packs) == 1
    if budget == "ample":
        return whole
    longest = 0
    for contest in contests:
        for given in (contest.teacher, *filter(lambda student: student.is_valid, contest.students)):
            for view in whole.view_names:
                [alone] = ContestBatch(encoder, [Contest(contest.prompt, given, ())], 100_000, mode).packs
                branch = response_branch(encoder, given, view)
                length = int((alone.branch_ids == -1).sum()) + len(branch)
                longest = max(longest, length)
    batch = ContestBatch(encoder, contests, longest * (2 if budget == "middle" else 1), mode)
    assert len(batch.packs) > (4 if budget == "tight" else 1)
    return batch


@pytest.fixture
def direct_scores(read_alone: Make) -> Callable[..., ContestScores]:
    """Every score from a forward of its own, all in one graph."""

    def run(discriminator: Discriminator, contests: Sequence[Contest]) -> ContestScores:
        views: dict[View, ViewScores] = {}
        for view in discriminator.views:
            teachers, students = [], []
            for contest in contests:
                teacher = read_alone(discriminator, contest.prompt, contest.teacher, view).score
                for student in contest.students:
                    teachers.append(teacher)
                    is_read = student.is_valid
                    students.append(
                        read_alone(discriminator, contest.prompt, student, view).score if is_read else torch.zeros(())
                    )
            views[view] = ViewScores(torch.stack(teachers), torch.stack(students))
        is_valid = torch.tensor([student.is_valid for contest in contests for student in contest.students])
        return ContestScores(views, is_valid)

    return run


def loss_of(pairs: ContestScores) -> Tensor:
    """As in alignment, with a regulariser large enough to be seen."""
    total, squares = torch.zeros(()), []
    for scores in pairs.views.values():
        margins = (scores.teacher - scores.student)[pairs.is_valid]
        total = total + softplus(-margins).sum() / max(1, len(margins))
        squares += [scores.teacher.square().mean(), scores.student.square().mean()]
    return total + 0.1 * torch.stack(squares).mean()


@pytest.mark.parametrize("budget", BUDGETS)
def test_scores_are_paired_as_from_forwards_of_their_own(
    discriminator: Discriminator,
    encoder: PromptEncoder,
    contests: list[Contest],
    direct_scores: Callable[..., ContestScores],
    budget: str,
) -> None:
    batch = pack(encoder, contests, discriminator.mode, budget)
    num_equal_to_the_teacher = 0 if "response" in discriminator.views else 2
    assert batch.num_branches == len(discriminator.views) * (len(contests) + 6) - num_equal_to_the_teacher
    pairs = batch.pair_scores(score(discriminator, batch))
    with torch.no_grad():
        expected = direct_scores(discriminator, contests)
    assert torch.equal(pairs.is_valid, IS_VALID)
    assert tuple(pairs.views) == discriminator.views
    for view, found in pairs.views.items():
        torch.testing.assert_close(found.teacher, expected.views[view].teacher, atol=1e-5, rtol=0)
        torch.testing.assert_close(found.student, expected.views[view].student, atol=1e-5, rtol=0)
        assert (found.student[~IS_VALID] == 0).all()
        assert found.teacher[:3].unique().numel() == 1
        # No two responses score alike, so that a mix-up would show.
        assert found.student[IS_VALID].unique().numel() == 6 and found.student.abs().max() < 9


def test_equal_texts_of_a_prompt_score_equally_to_the_bit(
    discriminator: Discriminator, encoder: PromptEncoder, make_prompt: Make
) -> None:
    """However they are packed; rounding would become an advantage where a group is normalised."""
    texts = [response("red circle 2", f"{number}. a", "1") for number in (1, 2, 3, 4, 5, 6, 1)]
    contest = Contest(make_prompt(0), response("red circle 2", "1. b", "1"), tuple(texts))
    alike = Contest(make_prompt(1), TEACHER, (TEACHER,))
    batch = pack(encoder, [contest, alike], discriminator.mode, "tight")
    pairs = batch.pair_scores(score(discriminator, batch))
    for view, found in pairs.views.items():
        assert found.student[7] == found.teacher[7]
        assert found.student[0] == found.student[6]
        assert found.student[:7].unique().numel() == (1 if view == "perception" else 6)
        assert (found.teacher[0] == found.student[0]) == (view == "perception")


@pytest.mark.parametrize("budget", BUDGETS)
def test_gradient_equals_that_of_one_graph_over_all_branches(
    discriminator: Discriminator,
    encoder: PromptEncoder,
    contests: list[Contest],
    direct_scores: Callable[..., ContestScores],
    take_gradients: Make,
    assert_same_gradients: Make,
    budget: str,
) -> None:
    loss_of(direct_scores(discriminator, contests)).backward()
    expected = take_gradients(discriminator)
    batch = pack(encoder, contests, discriminator.mode, budget)
    scores = score(discriminator, batch)
    found = score_and_backpropagate(discriminator, batch, loss_of)
    assert not scores.requires_grad and not found.scores.requires_grad
    torch.testing.assert_close(found.scores, scores)
    assert_same_gradients(take_gradients(discriminator), expected)


@pytest.mark.parametrize("budget", BUDGETS)
def test_only_packs_of_split_contests_are_read_twice(
    discriminator: Discriminator, encoder: PromptEncoder, contests: list[Contest], budget: str
) -> None:
    batch = pack(encoder, contests, discriminator.mode, budget)
    homes: dict[int, set[int]] = {}
    for number, packed in enumerate(batch.packs):
        for row in packed.rows.tolist():
            homes.setdefault(contest_of(batch, encoder, contests)[row], set()).add(number)
    split = sorted(set().union(*(packs for packs in homes.values() if len(packs) > 1)))
    assert [batch.packs.index(packed) for packed in batch.split_packs] == split
    # A tight budget splits most contests, and leaves one whole.
    assert 0 < len(split) < len(batch.packs) if budget == "tight" else not split
    num_calls = 0

    def count(*_: Any) -> None:
        nonlocal num_calls
        num_calls += 1

    discriminator.model.register_forward_pre_hook(count)
    score_and_backpropagate(discriminator, batch, loss_of)
    assert num_calls == len(batch.packs) + len(split)


def contest_of(batch: ContestBatch, encoder: PromptEncoder, contests: Sequence[Contest]) -> list[int]:
    """The contest of every branch."""
    found = []
    for place, contest in enumerate(contests):
        given = [contest.teacher, *filter(lambda student: student.is_valid, contest.students)]
        texts = {
            (view, *response_branch(encoder, one, view).token_ids.tolist())
            for one in given
            for view in batch.view_names
        }
        found += [place] * len(texts)
    return found


@pytest.mark.parametrize("budget", ["tight", "ample"])
def test_recomputed_activations_change_no_gradient(
    discriminator: Discriminator,
    encoder: PromptEncoder,
    contests: list[Contest],
    take_gradients: Make,
    assert_same_gradients: Make,
    budget: str,
) -> None:
    """Tokens are routed a second time in the backward pass, and to the same experts."""
    batch = pack(encoder, contests, discriminator.mode, budget)
    has_router = discriminator.mode != "dense"

    def router_loss(packed: Any, router_logits: tuple[Tensor, ...]) -> Tensor:
        return torch.stack([logits.softmax(-1).square().sum() for logits in router_logits]).sum() / 100

    layers = list(discriminator.model.get_submodule("language_model.layers").children())
    num_calls = 0

    def count(*_: Any) -> None:
        nonlocal num_calls
        num_calls += 1

    layers[0].get_submodule("mlp").register_forward_pre_hook(count)
    score_and_backpropagate(discriminator, batch, loss_of, router_loss if has_router else None)
    num_alone, num_calls = num_calls, 0
    assert num_alone == len(batch.packs) + len(batch.split_packs)
    expected = take_gradients(discriminator)
    discriminator.train()
    discriminator.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    score_and_backpropagate(discriminator, batch, loss_of, router_loss if has_router else None)
    assert num_calls == num_alone + len(batch.packs)
    assert_same_gradients(take_gradients(discriminator), expected)


def test_dedicated_experts_are_no_mere_subset_of_learned_ones(
    make_discriminator: Make, encoder: PromptEncoder, contests: list[Contest]
) -> None:
    """The same weights, routed freely, give other scores: the comparisons above would notice."""
    dedicated, learned = make_discriminator("dedicated"), make_discriminator("moe")
    learned.model.load_state_dict(dedicated.model.state_dict())
    with torch.no_grad():
        learned.head.weight.copy_(dedicated.head.weight[:1])
    scores = [
        made_batch.pair_scores(score(made, made_batch)).views["perception"].student[IS_VALID]
        for made in (dedicated, learned)
        for made_batch in [pack(encoder, contests, made.mode, "ample")]
    ]
    assert ((scores[0] - scores[1]).abs() > 1e-3).all()


@pytest.mark.parametrize("mode", ["moe", "dedicated"])
def test_a_loss_on_the_router_adds_its_gradient(
    make_discriminator: Make,
    encoder: PromptEncoder,
    contests: list[Contest],
    take_gradients: Make,
    assert_same_gradients: Make,
    mode: Mode,
) -> None:
    """A sum over all router probabilities squared, besides a game whose loss is 0."""
    discriminator = make_discriminator(mode)
    batch = pack(encoder, contests, mode, "tight")
    seen: list[int] = []

    def router_loss(packed: Any, router_logits: tuple[Tensor, ...]) -> Tensor:
        seen.append(len(packed))
        assert all(logits.shape == (len(packed), 6) for logits in router_logits) and len(router_logits) == 2
        return torch.stack([logits.softmax(-1).square().sum() for logits in router_logits]).sum() / 100

    whole = score_and_backpropagate(discriminator, batch, lambda pairs: 0 * loss_of(pairs), router_loss)
    together = take_gradients(discriminator)
    assert seen == [len(packed) for packed in batch.packs]
    parts = [
        score_and_backpropagate(discriminator, only(batch, packed), lambda pairs: 0 * loss_of(pairs), router_loss)
        for packed in batch.packs
    ]
    assert sum(part.pack_loss for part in parts) == pytest.approx(whole.pack_loss, rel=1e-5)
    assert_same_gradients(take_gradients(discriminator), together)
    gate = "model.language_model.layers.0.mlp.gate.weight"
    assert together[gate].abs().max() > 0


def only(batch: ContestBatch, packed: Any) -> ContestBatch:
    """One pack of a batch."""
    part = copy.copy(batch)
    part.packs, part.split_packs = [packed], []
    return part


def test_an_all_invalid_batch_leaves_only_the_regulariser(
    discriminator: Discriminator, encoder: PromptEncoder, make_prompt: Make, take_gradients: Make
) -> None:
    batch = ContestBatch(encoder, [Contest(make_prompt(0), TEACHER, (INVALID, INVALID))], 4096, discriminator.mode)
    scores = score(discriminator, batch)
    num_views = len(discriminator.views)
    assert batch.num_branches == num_views
    pairs = batch.pair_scores(scores)
    assert float(loss_of(pairs)) == pytest.approx(0.1 * float(scores.square().sum()) / (2 * num_views))
    score_and_backpropagate(discriminator, batch, loss_of)
    assert all(gradient.isfinite().all() for gradient in take_gradients(discriminator).values())


@pytest.mark.parametrize("blank", ["", " ", "\n"])
def test_teacher_and_rollout_of_one_text_are_read_alike(
    discriminator: Discriminator, encoder: PromptEncoder, make_prompt: Make, make_rollout: Make, blank: str
) -> None:
    """Blanks at the edges of the parts differ between the two; nothing that is scored does."""
    plain = TEXT.format("row 1: red circle 2.", "1. one", "1")
    spaced = plain.replace("><", f">{blank}<").replace(".</", f".{blank}</")
    teacher, student = parse_response(plain), parse_rollout(make_rollout(spaced))
    for view in discriminator.views:
        own, other = (response_branch(encoder, given, view) for given in (teacher, student))
        assert torch.equal(own.token_ids, other.token_ids)
        assert own.token_ids[-1] == encoder.end_token_id
    batch = ContestBatch(encoder, [Contest(make_prompt(0), teacher, (student,))], 4096, discriminator.mode)
    pairs = batch.pair_scores(score(discriminator, batch))
    assert tuple(pairs.views) == discriminator.views
    for scores in pairs.views.values():
        torch.testing.assert_close(scores.teacher, scores.student, atol=1e-5, rtol=0)
        assert scores.teacher.abs() > 1e-2


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


def test_other_images_change_every_score_but_those_of_text_only(
    discriminator: Discriminator, encoder: PromptEncoder, contests: list[Contest], make_prompt: Make
) -> None:
    """And without any image, text-only scores are the same again."""

    def scores(change: Callable[[Prompt], Prompt]) -> Tensor:
        changed = [replace(contest, prompt=change(contest.prompt)) for contest in contests if contest.prompt.images]
        return score(discriminator, pack(encoder, changed, discriminator.mode, "ample"))

    own = scores(lambda prompt: prompt)
    others = scores(lambda prompt: replace(prompt, images=make_prompt(9).images * len(prompt.images)))
    none = scores(lambda prompt: replace(prompt, images=(), question=prompt.question.replace("<image>", "")))
    if discriminator.mode == "text-only":
        assert torch.equal(own, others) and torch.equal(own, none)
    else:
        assert ((own - others).abs() > 1e-4).all() and ((own - none).abs() > 1e-4).all()


def test_the_only_score_of_a_whole_response_stands_for_both_views() -> None:
    scores = ViewScores(torch.tensor([1.0]), torch.tensor([2.0]))
    both: dict[View, ViewScores] = {"perception": scores, "reasoning": ViewScores(torch.zeros(1), torch.ones(1))}
    is_valid = torch.tensor([True])
    whole = ContestScores({"response": scores}, is_valid)
    assert [whole.student(view).item() for view in ("perception", "reasoning")] == [2, 2]
    assert [ContestScores(both, is_valid).student(view).item() for view in ("perception", "reasoning")] == [2, 1]
