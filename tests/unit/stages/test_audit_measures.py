"""What an audit measures of texts, scores and inputs, against the same things computed one by one."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from prism.evals.audit import BLANKED, MISDESCRIBED, SHUFFLED, SWAPPED
from prism.models import Discriminator, PromptEncoder, response_branch
from prism.packing.pack import PackedTrees
from prism.records import Demonstration, Prompt, RolloutGroup
from prism.rewards import parse_response
from prism.stages import scoring
from prism.stages.audit_measures import AuditInputs, has_other_positions, measure, measure_inputs, read_tokens
from prism.stages.scoring import Contest, ContestBatch

Make = Callable[..., Any]
TEXT = "<caption>{}</caption><think>{}</think><answer>{}</answer>"


@pytest.fixture
def demonstrations(make_prompt: Make) -> list[Demonstration]:
    """Six prompts of one size with pictures of their own, the third with none."""
    return [
        Demonstration(
            make_prompt(index, with_image=index != 2),
            parse_response(TEXT.format(f"row 1: red circle {index}.", f"1. it is {index}.\n2. so two.", "2")),
        )
        for index in range(6)
    ]


@pytest.fixture
def make_inputs(
    encoder: PromptEncoder, make_policy: Make, make_rollout: Make, demonstrations: list[Demonstration]
) -> Callable[..., AuditInputs]:
    """Two rollouts for each prompt: a shorter valid one, and an invalid one."""

    def make(discriminator: Discriminator | None, *, token_budget: int = 400) -> AuditInputs:
        groups = [
            RolloutGroup(
                given.prompt,
                (make_rollout(TEXT.format("red", "1. two.", "2")), make_rollout("no format", sample=1)),
            )
            for given in demonstrations
        ]
        mode = "moe" if discriminator is None else discriminator.mode
        body = make_policy().model if discriminator is None else discriminator.model
        return AuditInputs(demonstrations, groups, encoder, body, discriminator, mode, token_budget, seed=0)

    return make


def test_tokens_are_read_off_the_packs_branch_by_branch(
    encoder: PromptEncoder, demonstrations: list[Demonstration], discriminator: Discriminator
) -> None:
    short = parse_response(TEXT.format("red", "1. two.", "2"))
    contests = [Contest(given.prompt, given.response, (short,)) for given in demonstrations]
    batch = ContestBatch(encoder, contests, 300, discriminator.mode)
    assert len(batch.packs) > 1
    expected = [
        tuple(response_branch(encoder, response, view).token_ids.tolist())
        for contest in contests
        for response in (contest.teacher, *contest.students)
        for view in discriminator.views
    ]
    assert read_tokens(batch) == expected


def test_scores_accuracies_and_probes_are_those_of_single_readings(
    discriminator: Discriminator, make_inputs: Make, demonstrations: list[Demonstration], read_alone: Make
) -> None:
    """The head has no zero weights, so that broken texts and pictures change the scores."""
    found = measure(make_inputs(discriminator))
    rollout = parse_response(TEXT.format("red", "1. two.", "2"))

    @torch.no_grad()
    def score(prompt: Prompt, response: Any, view: Any) -> float:
        return float(read_alone(discriminator, prompt, response, view).score)

    for view in discriminator.views:
        teacher = [score(given.prompt, given.response, view) for given in demonstrations]
        student = [score(given.prompt, rollout, view) for given in demonstrations]
        wins = [own > other for own, other in zip(teacher, student, strict=True)]
        assert found.accuracy[view].mean == pytest.approx(sum(wins) / len(wins))
        assert found.accuracy[view].count == len(demonstrations)
        if view == "reasoning" or discriminator.mode == "text-only":
            continue
        # Each picture is swapped for that of the next prompt that has one: 0 1 3 4 5 → 1 3 4 5 0.
        with_image = [place for place, given in enumerate(demonstrations) if given.prompt.images]
        falls = [
            teacher[place]
            - score(
                dataclasses.replace(demonstrations[place].prompt, images=demonstrations[other].prompt.images),
                demonstrations[place].response,
                view,
            )
            for place, other in zip(with_image, [*with_image[1:], with_image[0]], strict=True)
        ]
        swapped = found.probes[view][SWAPPED]
        assert swapped.fall.mean == pytest.approx(sum(falls) / len(falls), abs=1e-5)
        assert swapped.num_pairs == 5 and found.probes[view][BLANKED].num_pairs == 5


def test_views_have_the_probes_that_concern_them(make_discriminator: Make, make_inputs: Make) -> None:
    probes = measure(make_inputs(make_discriminator("moe"))).probes
    assert list(probes) == ["perception", "reasoning"]
    assert set(probes["perception"]) >= {SWAPPED, BLANKED, MISDESCRIBED} and SHUFFLED not in probes["perception"]
    assert all(probe.num_pairs == 6 for probe in (probes["perception"][MISDESCRIBED], probes["reasoning"][SHUFFLED]))
    whole = measure(make_inputs(make_discriminator("whole-response"))).probes
    assert list(whole) == ["response"] and set(whole["response"]) > {SWAPPED, MISDESCRIBED, SHUFFLED}


def test_texts_are_the_parts_without_answer_and_tags_and_only_of_valid_rollouts(make_inputs: Make) -> None:
    """The mean number of characters of both sides, by hand."""
    views = measure(make_inputs(None)).shortcuts.views
    assert list(views) == ["perception", "reasoning"]
    for view, teacher, rollout in (
        ("perception", "row 1: red circle 0.", "red"),
        ("reasoning", "1. it is 0.\n2. so two.", "1. two."),
    ):
        result = views[view].features["characters"]
        assert (result.teacher_mean, result.rollout_mean) == (len(teacher), len(rollout))
        assert views[view].num_pairs == 6


def test_a_whole_response_is_audited_in_its_parts_as_well(make_discriminator: Make, make_inputs: Make) -> None:
    views = measure(make_inputs(make_discriminator("whole-response"))).shortcuts.views
    assert list(views) == ["response", "description", "think"]
    assert views["description"].features["characters"].rollout_mean == len("red")
    assert views["response"].features["characters"].rollout_mean == len(TEXT.format("red", "1. two.", "2"))
    assert views["description"].features["end_token"].accuracy.mean == 0.5


def test_without_a_discriminator_texts_and_inputs_remain(make_inputs: Make) -> None:
    found = measure(make_inputs(None))
    assert (found.accuracy, found.probes, found.length_correlation) == ({}, {}, {})
    assert found.inputs.num_prompts == 6 and found.inputs.num_images == 5


def test_healthy_inputs(discriminator: Discriminator, make_inputs: Make) -> None:
    found = measure_inputs(make_inputs(discriminator))
    is_blind = discriminator.mode == "text-only"
    assert (found.num_images, found.num_images_read) == ((0, 0) if is_blind else (5, 5))
    assert found.num_texts == 6 * len(discriminator.views)
    assert (found.num_wrong_positions, found.num_read_otherwise) == (0, 0)


def test_an_end_that_only_rollouts_have_is_read_otherwise(
    make_inputs: Make, demonstrations: list[Demonstration], monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers = [given.response for given in demonstrations]

    def branch(encoder: PromptEncoder, response: Any, view: Any) -> Any:
        built = response_branch(encoder, response, view)
        is_cut = view == "reasoning" and not any(response is teacher for teacher in teachers)
        return type(built)(built.token_ids[:-1], built.mask[:-1]) if is_cut else built

    monkeypatch.setattr(scoring, "response_branch", branch)
    assert measure_inputs(make_inputs(None)).num_read_otherwise == 6


def change_positions(packed: PackedTrees, change: Callable[[torch.Tensor], torch.Tensor]) -> PackedTrees:
    return dataclasses.replace(packed, position_ids=change(packed.position_ids.clone()))


def test_any_other_position_is_found(
    encoder: PromptEncoder, make_policy: Make, demonstrations: list[Demonstration]
) -> None:
    """Flattened ones, a single one of the picture, and a branch that begins one too late."""
    body = make_policy().model
    given = demonstrations[0]
    [packed] = ContestBatch(encoder, [Contest(given.prompt, given.response, ())], 400, "moe").packs

    def is_found(change: Callable[[torch.Tensor], torch.Tensor]) -> bool:
        return has_other_positions(body, change_positions(packed, change), encoder.image_token_id)

    image = int((packed.input_ids == encoder.image_token_id).nonzero()[1])
    last = int(packed.end_positions[-1])
    assert not is_found(lambda positions: positions)
    assert is_found(lambda positions: positions[:1].expand(3, -1))
    for row, column in ((2, image), (0, last), (1, 0)):

        def shift(positions: torch.Tensor, row: int = row, column: int = column) -> torch.Tensor:
            positions[row, column] += 1
            return positions

        assert is_found(shift)
