"""Advantages and metrics of a round of alignment by hand, and rollouts of earlier rounds among them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from prism.config import AlignConfig
from prism.config.control import ControlConfig, Replay
from prism.data.world.datasets import DEV, FAITHFUL, demonstrations
from prism.errors import DataError
from prism.models import Discriminator, PromptEncoder
from prism.records import Demonstration, Rollout, RolloutGroup
from prism.rewards import parse_response
from prism.stages.control import Control
from prism.stages.credit import align_advantages, check_answers, credit_metrics, verdicts_of
from prism.stages.game import game_metrics
from prism.stages.length import without_length
from prism.stages.rollouts import description_metrics, parse_rollout
from prism.stages.round import (
    answer_metrics,
    by_prompt_id,
    discriminator_metrics,
    drift_metrics,
    make_contest,
    make_round,
    replayed_contests,
    teacher_metrics,
)
from prism.stages.scoring import Contest, ContestBatch, ContestScores, ViewScores, score

Make = Callable[..., Any]
TEXT = "<caption>{}</caption><think>{}</think><answer>{}</answer>"
GROUP_IDS = torch.tensor([0, 0, 0, 1, 1, 1])
PAIRS = ContestScores(
    {
        "perception": ViewScores(
            torch.tensor([2.0, 2.0, 2.0, 1.0, 1.0, 1.0]), torch.tensor([1.0, 2.0, 3.0, 4.0, 0.0, 2.0])
        ),
        "reasoning": ViewScores(
            torch.tensor([3.0, 3.0, 3.0, 0.5, 0.5, 0.5]), torch.tensor([0.0, 2.0, 4.0, 1.0, 0.0, 1.0])
        ),
    },
    torch.tensor([True, True, True, True, False, True]),
)
WHOLE = ContestScores({"response": PAIRS.views["perception"]}, PAIRS.is_valid)


def make_config(**fields: Any) -> AlignConfig:
    return AlignConfig.model_validate({"num_steps": 1} | fields)


def advantages(pairs: ContestScores, group_ids: torch.Tensor, config: AlignConfig) -> torch.Tensor:
    """In a form that reads no verdicts."""
    return align_advantages(pairs, group_ids, config.advantage, [None] * len(group_ids))


def test_branch_form_by_hand() -> None:
    """First group: perception (−1, 0, 1) and reasoning (−1, 0, 1). Second: the invalid rollout scores 2 − 1 = 1
    and 1 − 1 = 0, so perception is (4, 1, 2), mean 7/3, deviation √(7/3), and reasoning (1, 0, 1), mean 2/3,
    deviation 1/√3; it then loses 1.5."""
    deviation = (7 / 3) ** 0.5
    perception = [(4 - 7 / 3) / deviation, (1 - 7 / 3) / deviation, (2 - 7 / 3) / deviation]
    reasoning = [3**0.5 / 3, -2 * 3**0.5 / 3, 3**0.5 / 3]
    for alpha in (0.5, 0.25):
        second = [alpha * own + (1 - alpha) * other for own, other in zip(perception, reasoning, strict=True)]
        second[1] -= 1.5
        found = advantages(PAIRS, GROUP_IDS, make_config(advantage={"type": "branch", "alpha": alpha}))
        torch.testing.assert_close(found, torch.tensor([-1.0, 0.0, 1.0, *second]), atol=1e-5, rtol=0)


def test_branch_form_is_the_default_and_its_penalty_is_configured() -> None:
    default = advantages(PAIRS, GROUP_IDS, make_config())
    heavier = advantages(PAIRS, GROUP_IDS, make_config(advantage={"format_penalty": 4.0}))
    torch.testing.assert_close(default - heavier, torch.tensor([0, 0, 0, 0, 2.5, 0]))


def test_mixed_form_by_hand() -> None:
    """r = (0.5, 2, 3.5) has deviation 1.5; r = (2.5, 0.5, 1.5) has mean 1.5 and deviation 1."""
    found = advantages(PAIRS, GROUP_IDS, make_config(advantage={"type": "mixed"}))
    torch.testing.assert_close(found, torch.tensor([-1.0, 0.0, 1.0, 1.0, -1.0, 0.0]), atol=1e-5, rtol=0)


def test_mixed_form_weighs_the_branches_by_alpha() -> None:
    """α = 1: perception alone, whose second group is (4, 1, 2)."""
    found = advantages(PAIRS, GROUP_IDS, make_config(advantage={"type": "mixed", "alpha": 1.0}))
    deviation = (7 / 3) ** 0.5
    expected = [-1.0, 0.0, 1.0, (5 / 3) / deviation, (-4 / 3) / deviation, (-1 / 3) / deviation]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", ["branch", "mixed"])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_score_of_a_whole_response_is_normalised_whatever_alpha(form: str, alpha: float) -> None:
    """First group (1, 2, 3), second (4, 1, 2) with the invalid one a point below the worst."""
    found = advantages(WHOLE, GROUP_IDS, make_config(advantage={"type": form, "alpha": alpha}))
    deviation = (7 / 3) ** 0.5
    expected = [-1.0, 0.0, 1.0, (5 / 3) / deviation, (-4 / 3) / deviation, (-1 / 3) / deviation]
    expected[4] -= 1.5 if form == "branch" else 0
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)


def test_discriminator_metrics_by_hand() -> None:
    """Margins of valid pairs: perception 1, 0, −1, −3, −1 and reasoning 3, 1, −1, −0.5, −0.5."""
    metrics = discriminator_metrics(PAIRS, make_config(score_regularization=0.1))

    def bradley_terry(margins: list[float]) -> float:
        return float(torch.nn.functional.softplus(-torch.tensor(margins, dtype=torch.float)).mean())

    perception, reasoning = bradley_terry([1, 0, -1, -3, -1]), bradley_terry([3, 1, -1, -0.5, -0.5])
    mean_square = (15 / 6 + 27.75 / 6 + 34 / 6 + 22 / 6) / 4
    assert metrics == {
        "loss/perception": pytest.approx(perception),
        "loss/reasoning": pytest.approx(reasoning),
        "loss/score_regularisation": pytest.approx(mean_square),
        "loss/discriminator": pytest.approx(perception + reasoning + 0.1 * mean_square),
    }
    whole = discriminator_metrics(WHOLE, make_config(score_regularization=0.1))
    assert whole == {
        "loss/response": pytest.approx(perception),
        "loss/score_regularisation": pytest.approx((15 / 6 + 34 / 6) / 2),
        "loss/discriminator": pytest.approx(perception + 0.1 * (15 / 6 + 34 / 6) / 2),
    }


def test_without_a_valid_rollout_nothing_is_measured() -> None:
    nothing = ViewScores(torch.ones(2), torch.zeros(2))
    none = ContestScores({"perception": nothing, "reasoning": nothing}, torch.zeros(2, dtype=torch.bool))
    metrics = game_metrics(none) | discriminator_metrics(none, make_config())
    missing = ("gap/perception", "gap/reasoning", "accuracy/perception", "accuracy/reasoning")
    assert all(metrics[name] is None for name in (*missing, "loss/perception", "loss/reasoning"))
    assert metrics["accuracy/count"] == 0
    found = advantages(none, torch.zeros(2, dtype=torch.long), make_config())
    assert found.tolist() == [-1.5, -1.5]


def test_a_rollout_equal_to_the_teacher_leaves_no_gap(
    discriminator: Discriminator, encoder: PromptEncoder, make_prompt: Make, make_rollout: Make
) -> None:
    text = TEXT.format("row 1: red circle 2.", "1. one", "1")
    contest = Contest(make_prompt(0), parse_response(text), (parse_rollout(make_rollout(text)),) * 2)
    batch = ContestBatch(encoder, [contest], 4096, discriminator.mode)
    scores = score(discriminator, batch)
    assert scores.abs().min() > 1e-2
    metrics = game_metrics(batch.pair_scores(scores))
    for view in discriminator.views:
        assert metrics[f"gap/{view}"] == pytest.approx(0, abs=1e-5)


def test_answer_metrics_by_hand(make_prompt: Make, make_rollout: Make) -> None:
    """The prompts ask for 2; the picture of the first is known, and half of its attributes are said rightly."""
    known = make_prompt(0, metadata={"scene": "1x2:red circle 2,blue star 3"})
    texts = [
        TEXT.format("a1 red circle 2, a2 red circle 2.", "x", "2"),
        TEXT.format("a1 red circle 2, a2 blue star 3.", "x", "3"),
        "2",
        TEXT.format("a picture", "x", "2"),
    ]
    rollouts = [make_rollout(text) for text in texts]
    groups = [RolloutGroup(known, tuple(rollouts[:2])), RolloutGroup(make_prompt(1), tuple(rollouts[2:]))]
    responses = list(map(parse_rollout, rollouts))
    metrics = answer_metrics(verdicts_of(groups, responses)) | description_metrics(groups, responses)
    assert metrics == {
        "reward/accuracy": pytest.approx(2 / 4),
        "reward/unverifiable": 0,
        "reward/caption_exact": pytest.approx(1 / 2),
        "reward/caption_fraction": pytest.approx((1 / 2 + 1) / 2),
    }


def test_teacher_metrics_by_hand(make_prompt: Make, encoder: PromptEncoder) -> None:
    responses = [TEXT.format("a, b", "1. x\n2. y", "2"), TEXT.format("a, b, c.", "1. x", "2")]
    demonstrations = [Demonstration(make_prompt(0), parse_response(text)) for text in responses]
    length = sum(len(encoder.completion_ids(text)) for text in responses) / 2
    expected = {"teacher/length": length, "teacher/num_steps": 1.5, "teacher/num_items": 2.5}
    assert teacher_metrics(demonstrations, encoder) == expected


def test_an_advantage_that_heeds_answers_needs_some(make_prompt: Make) -> None:
    prompts = [replace(make_prompt(place), answer=answer) for place, answer in enumerate((None, "2", None))]
    form = make_config(advantage={"type": "gated", "base": {"type": "mixed"}}).advantage
    check_answers(form, prompts)
    check_answers(make_config().advantage, prompts[:1])
    message = 'advantage.type is "gated", which .* no row .* add the answers, or take "mixed"'
    with pytest.raises(DataError, match=message):
        check_answers(form, [prompts[0], prompts[2]])


def test_what_scores_follow_is_measured_within_groups(make_prompt: Make, make_rollout: Make) -> None:
    """The first prompt's longer texts score higher, the second's right answers; an invalid rollout counts nowhere.
    Over both, by hand: ranks of differences from the groups' means."""
    texts = [
        TEXT.format(caption, think, answer)
        for caption, think, answer in (
            ("a", "1. b", "2"),
            ("a b", "1. b c", "2"),
            ("a b c", "1. b c d", "2"),
            ("a", "1. b", "2"),
            ("a", "1. b", "3"),
            ("a", "1. b", "3"),
        )
    ]
    rollouts = [make_rollout(text) for text in [*texts[:3], "no format", *texts[3:], "no format"]]
    prompts = [replace(make_prompt(place), answer="2") for place in range(2)]
    groups = [RolloutGroup(prompts[0], tuple(rollouts[:4])), RolloutGroup(prompts[1], tuple(rollouts[4:]))]
    responses = [parse_rollout(rollout) for rollout in rollouts]
    is_valid = torch.tensor([response.is_valid for response in responses])
    assert is_valid.sum() == 6
    student = torch.tensor([1.0, 2.0, 3.0, 0.0, 9.0, 6.0, 6.0, 0.0])
    views: dict[Any, ViewScores] = {
        "perception": ViewScores(student, student),
        "reasoning": ViewScores(student, -student),
    }
    verdicts = verdicts_of(groups, responses)
    found = credit_metrics(groups, responses, verdicts, ContestScores(views, is_valid))
    # Scores less their group's mean: −1, 0, 1, 2, −1, −1; lengths: −1, 0, 1, 0, 0, 0 (twice as much for characters).
    score_ranks, length_ranks = [1, 3, 4, 5, 1, 1], [0, 2.5, 5, 2.5, 2.5, 2.5]
    by_hand = float(np.corrcoef(score_ranks, length_ranks)[0, 1])
    assert found["credit/perception_length"] == pytest.approx(by_hand)
    assert found["credit/reasoning_length"] == pytest.approx(-by_hand)
    # Answers less their group's mean: 0, 0, 0, 2/3, −1/3, −1/3.
    by_hand = float(np.corrcoef(score_ranks, [3, 3, 3, 5, 0.5, 0.5])[0, 1])
    assert found["credit/perception_answer"] == pytest.approx(by_hand)
    assert found["credit/perception_facts"] is found["credit/reasoning_facts"] is None


def test_facts_are_followed_in_the_built_in_world() -> None:
    """A score that is the share of facts follows them without exception, and one that never varies nothing."""
    example = next(demonstrations("facts", DEV, FAITHFUL, 1, seed=0))
    teacher = parse_response(example.completion)
    items = str(teacher.caption).split(", ")
    captions = [", ".join(items[:count]) for count in (1, 2, 4)]
    responses = [parse_response(TEXT.format(caption, "1. so", "2")) for caption in captions]
    groups = [RolloutGroup(example.prompt, tuple(Rollout(0, (), response.text, True) for response in responses))]
    rising, flat = torch.tensor([1.0, 2.0, 3.0]), torch.zeros(3)
    views: dict[Any, ViewScores] = {"perception": ViewScores(flat, rising), "reasoning": ViewScores(flat, flat)}
    found = credit_metrics(groups, responses, [None] * 3, ContestScores(views, torch.ones(3, dtype=torch.bool)))
    assert found["credit/perception_facts"] == found["credit/perception_length"] == pytest.approx(1)
    assert (
        found["credit/reasoning_facts"] is found["credit/reasoning_length"] is found["credit/perception_answer"] is None
    )


def make_round_of(
    texts: list[str],
    replayed: list[Contest],
    encoder: PromptEncoder,
    discriminator: Discriminator,
    make: Any,
    **fields: Any,
) -> tuple[Any, ContestBatch]:
    """Two prompts with two rollouts each, the teacher's texts being the same for both."""
    make_prompt, make_rollout = make
    teacher = parse_response(TEXT.format("row 1: red circle 2.", "1. one", "2"))
    demonstrations = [Demonstration(make_prompt(place), teacher) for place in range(2)]
    rollouts = [make_rollout(text) for text in texts]
    groups = [
        RolloutGroup(demonstration.prompt, tuple(rollouts[2 * place : 2 * place + 2]))
        for place, demonstration in enumerate(demonstrations)
    ]
    contests = [make_contest(*pair) for pair in zip(demonstrations, groups, strict=True)]
    game = ContestBatch(encoder, [*contests, *replayed], 4096, discriminator.mode)
    pairs = game.pair_scores(score(discriminator, game))
    return make_round(demonstrations, groups, contests, pairs, make_config(group_size=2, **fields)), game


def test_replayed_rollouts_earn_nothing_and_are_not_measured(
    discriminator: Discriminator, encoder: PromptEncoder, make_prompt: Make, make_rollout: Make
) -> None:
    """The round is the same with them and without; in the game stand two pairs more."""
    texts = [TEXT.format("some thing ?", "1. it is 2", number) for number in "123"] + ["no format"]
    old = [TEXT.format("a picture", "1. so", number) for number in "45"]
    replayed = [Contest(make_prompt(7), parse_response(TEXT.format("a", "1. b", "2")), tuple(map(parse_response, old)))]
    make = (make_prompt, make_rollout)
    alone, game = make_round_of(texts, [], encoder, discriminator, make)
    beside, whole = make_round_of(texts, replayed, encoder, discriminator, make)
    num_distinct = 3 * len(discriminator.views) - ("perception" in discriminator.views)  # the two describe alike
    assert whole.num_branches == game.num_branches + num_distinct
    torch.testing.assert_close(beside.advantages, alone.advantages, atol=1e-4, rtol=1e-4)
    assert beside.pairs.is_valid.tolist() == [True, True, True, False]
    config = make_config(group_size=2)
    assert beside.metrics(config, encoder) == pytest.approx(alone.metrics(config, encoder), abs=1e-5)
    assert alone.valid_texts == beside.valid_texts == [("p0", texts[0]), ("p0", texts[1]), ("p1", texts[2])]


def test_length_correction_changes_advantages_and_no_metric(
    discriminator: Discriminator, encoder: PromptEncoder, make_prompt: Make, make_rollout: Make
) -> None:
    texts = [TEXT.format("red", "1. one", "1"), TEXT.format("red circle", "1. one\n2. two", "1")] * 2
    make = (make_prompt, make_rollout)
    form = {"type": "branch", "eps": 1.0}  # of two rollouts a small one would leave the signs alone
    plain, _ = make_round_of(texts, [], encoder, discriminator, make, advantage=form)
    corrected, _ = make_round_of(texts, [], encoder, discriminator, make, advantage=form, length_correction=True)
    config, group_ids = make_config(group_size=2, advantage=form), torch.tensor([0, 0, 1, 1])
    expected = advantages(without_length(plain.pairs, plain.responses, group_ids), group_ids, config)
    torch.testing.assert_close(corrected.advantages, expected)
    assert not torch.allclose(corrected.advantages, plain.advantages, atol=1e-3)
    assert corrected.metrics(config, encoder) == plain.metrics(config, encoder)


def make_control(**decision: Any) -> Control:
    """A control that has decided this, and remembers two rollouts of each of eight prompts."""
    state: dict[str, Any] = {}
    control = Control(ControlConfig(reactions=(Replay(),)), state, seed=0)
    control.remember(1, [(f"p{place % 8}", TEXT.format("a", "1. b", place)) for place in range(16)])
    state["decision"] |= decision
    return control


def test_the_share_of_replayed_rollouts_beside_the_valid_ones(make_prompt: Make) -> None:
    """6 of 8 are valid, and 6/4·1 = 2 more make a share of 1/4; each against the teacher of its own prompt."""
    teachers = by_prompt_id(
        [Demonstration(make_prompt(place), parse_response(TEXT.format(place, "1. x", "2"))) for place in range(8)]
    )
    own = parse_response(TEXT.format("c", "1. x", "2"))
    contests = [Contest(make_prompt(0), own, (own, own, own, parse_response("2")))] * 2
    control = make_control(replay_share=0.25)
    replayed = replayed_contests(control, 2, contests, teachers)
    students = [(contest, student) for contest in replayed for student in contest.students]
    assert len(students) == 2 and all(student.is_valid for _, student in students)
    for contest, student in students:
        assert contest.prompt.id == f"p{int(student.answer or -1) % 8}"
        assert contest.teacher.caption == contest.prompt.id.removeprefix("p")
    assert replayed_contests(control, 2, [Contest(make_prompt(0), own, (parse_response("2"),))], teachers) == []


def test_nothing_is_replayed_to_a_discriminator_that_rests(make_prompt: Make) -> None:
    own = parse_response(TEXT.format("c", "1. x", "2"))
    contests = [Contest(make_prompt(0), own, (own,) * 6)]
    teachers = by_prompt_id([Demonstration(make_prompt(place), own) for place in range(8)])
    resting = make_control(replay_share=0.25, discriminator_updates=0)
    assert replayed_contests(make_control(replay_share=0.25), 2, contests, teachers)
    assert replayed_contests(resting, 2, contests, teachers) == []


def test_replay_needs_prompts_it_can_tell_apart(make_prompt: Make) -> None:
    twice = [Demonstration(make_prompt(place), parse_response("")) for place in (0, 1, 0)]
    with pytest.raises(DataError, match="1 rows have the prompt id of another row"):
        by_prompt_id(twice)


def test_drift_of_a_step_is_measured_prompt_by_prompt(make_prompt: Make) -> None:
    """Each teacher reasons in two steps; the rollouts in two and four, then in two and two: half a step too many in
    the mean. One without the format has no reasoning to count."""
    teacher = parse_response(TEXT.format("- a star", "1. so\n2. so", "4"))
    demonstrations = [Demonstration(make_prompt(0), teacher)] * 2
    texts = ["1. so\n2. so", "1. so\n2. so\n3. so\n4. so", "1. so\n2. so", "1. so\n2. so"]
    responses = [parse_response(TEXT.format("- a star", text, "4")) for text in texts]
    found = drift_metrics(demonstrations, responses)
    assert found["drift/reasoning/steps"] == 0.5
    assert found["drift/description/items"] == found["drift/description/unigrams"] == 0
    broken = [parse_response("no format")] * 4
    assert drift_metrics(demonstrations, broken)["drift/reasoning/steps"] is None
