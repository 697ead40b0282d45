"""That alignment plays each step as collapse control decides, and that a game which has failed stays stopped."""

import copy
import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from prism.config import AlignConfig, TransformersRollout, plan_stages
from prism.config.loading import build_config
from prism.errors import AlignmentCollapseError, NumericsError
from prism.models import Discriminator, PromptEncoder, load_policy
from prism.records import Demonstration, Prompt, RolloutGroup
from prism.rewards import parse_response
from prism.runtime.checkpoint import list_checkpoints
from prism.stages import align, base, datasets, engines
from prism.stages.align import Players, update_policy
from prism.stages.collapse import Diagnosis
from prism.stages.control import Control, Decision
from prism.stages.round import Round, make_contest, make_round
from prism.stages.scoring import ContestBatch, score
from prism.stages.workspace import Workspace
from still_engine import StillEngine

Make = Callable[..., Any]
TEXT = "<caption>{}</caption><think>{}</think><answer>{}</answer>"
RATE = 1e-3
ALIGN = {
    "num_steps": 1,
    "prompts_per_step": 5,
    "group_size": 2,
    "max_response_tokens": 170,
    "token_budget": 2300,
    "policy_learning_rate": RATE,
    "discriminator_learning_rate": RATE,
    "weight_decay": 0.0,
}


@pytest.fixture
def players(make_policy: Make, make_discriminator: Make, encoder: PromptEncoder) -> Players:
    """Players who walk down the gradient, so that how far they go is in proportion to the rate."""
    policy, discriminator = make_policy(), make_discriminator("moe")
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.1) for module in (policy, discriminator)]
    return Players(encoder, policy, optimizers[0], None, discriminator, optimizers[1])


@pytest.fixture
def played(players: Players, make_prompt: Make, make_rollout: Make) -> Round:
    demonstration = Demonstration(make_prompt(0), parse_response(TEXT.format("row 1: red circle 2.", "1. one", "2")))
    rollouts = tuple(make_rollout(TEXT.format(f"{name} thing", "1. so", "2"), sample=0) for name in ("red", "blue"))
    contest = make_contest(demonstration, RolloutGroup(demonstration.prompt, rollouts))
    game = ContestBatch(players.encoder, [contest], 4096, players.discriminator.mode)
    pairs = game.pair_scores(score(players.discriminator, game))
    groups = [RolloutGroup(demonstration.prompt, rollouts)]
    return make_round([demonstration], groups, [contest], pairs, AlignConfig(num_steps=1, group_size=2))


def flat(module: torch.nn.Module) -> Tensor:
    return torch.cat([weights.detach().flatten() for weights in module.parameters()])


def test_the_policys_rate_scales_one_step_only(players: Players, played: Round) -> None:
    config = AlignConfig(num_steps=1, group_size=2)
    start, weights = flat(players.policy), copy.deepcopy(players.policy.state_dict())
    moves = []
    for rate in (1.0, 0.25, 1.0):
        players.policy.load_state_dict(weights)
        update, norm = update_policy(players, played, config, Decision(policy_rate=rate), TransformersRollout(), 1)
        moves.append(float((flat(players.policy) - start).norm()))
        assert players.policy_optimizer.param_groups[0]["lr"] == 0.1
    assert moves == pytest.approx([0.1 * min(norm, 1), 0.025 * min(norm, 1), 0.1 * min(norm, 1)], rel=1e-3)
    assert update.entropy > 0


def test_a_held_policy_is_measured_and_left_as_it_is(players: Players, played: Round) -> None:
    """Nothing is left behind either: what follows is the step that would have been taken at first."""
    config, before = AlignConfig(num_steps=1, group_size=2), flat(players.policy)
    held = update_policy(players, played, config, Decision(policy_updates=0), TransformersRollout(), 1)
    assert torch.equal(flat(players.policy), before)
    assert all(weights.grad is None for weights in players.policy.parameters())
    assert not players.policy_optimizer.state
    assert held == update_policy(players, played, config, Decision(), TransformersRollout(), 1)
    assert held[1] > 0 and not torch.equal(flat(players.policy), before)


@pytest.fixture
def play(
    make_workspace: Make, make_discriminator: Make, make_rollout: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Make:
    """Runs an alignment of a policy that writes what it is told: valid texts, others in every step.

    Every step is played as the next of `decisions` says, where they are given. Returns the workspace.
    """
    make_discriminator("moe").save_pretrained(tmp_path / "judge")

    class Engine(StillEngine):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.step = itertools.count(1)

        def generate(self, prompts: Sequence[Prompt], *, num_samples: int, **options: Any) -> list[RolloutGroup]:
            step = next(self.step)
            return [
                RolloutGroup(
                    prompt,
                    tuple(
                        make_rollout(TEXT.format(f"{prompt.id} {step}", f"1. so {sample}", "3"), sample=sample)
                        for sample in range(num_samples)
                    ),
                )
                for prompt in prompts
            ]

    def run(name: str, *, decisions: Sequence[Decision] = (), **fields: Any) -> Workspace:
        class Decided(Control):
            num_observed = 0

            @property
            def decision(self) -> Decision:
                return decisions[self.num_observed] if decisions else super().decision

            def observe(self, *arguments: Any) -> Any:
                self.num_observed += 1
                return super().observe(*arguments)

        monkeypatch.setattr(engines, "TransformersEngine", Engine)
        monkeypatch.setattr(align, "Control", Decided)
        config = build_config(AlignConfig, ALIGN | fields, (), source="test")
        discriminator = {"type": "moe", "checkpoint": tmp_path / "judge"}
        workspace = make_workspace(output=tmp_path / name, align=config, discriminator=discriminator)
        datasets.prepare(workspace)
        for stage in plan_stages(workspace.recipe):
            {"base": base.run, "align": align.run}[stage.kind](workspace, stage)
        return workspace

    return run


def rows(workspace: Workspace, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    file = workspace.stage_directory("align") / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def moved(workspace: Workspace) -> tuple[float, float]:
    """The greatest change of a weight of the policy and of the discriminator."""
    before, after = (load_policy(workspace.model_directory(stage)) for stage in ("base", "align"))
    checkpoint = workspace.recipe.discriminator.checkpoint
    assert checkpoint is not None
    directories = (checkpoint, workspace.stage_directory("align") / "discriminator")
    judges = [Discriminator.from_pretrained(directory) for directory in directories]
    return float((flat(after) - flat(before)).abs().max()), float((flat(judges[1]) - flat(judges[0])).abs().max())


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (Decision(), (RATE, RATE)),
        (Decision(policy_updates=0), (0, RATE)),
        (Decision(discriminator_updates=0), (RATE, 0)),
        (Decision(discriminator_updates=2), (RATE, 2 * RATE)),
        (Decision(policy_rate=0.5, discriminator_rate=2.0), (0.5 * RATE, 2 * RATE)),
    ],
)
def test_each_side_moves_as_decided(play: Make, decision: Decision, expected: tuple[float, float]) -> None:
    """AdamW's first step is as long as the learning rate, the second nearly so."""
    workspace = play("run", decisions=[decision], control={})
    assert moved(workspace) == pytest.approx(expected, rel=0.1, abs=1e-7)
    [row] = rows(workspace)
    assert row["policy/grad_norm"] > 0 and row["rollout/entropy"] > 0
    for name in ("discriminator/grad_norm", "discriminator/weight_change"):
        assert (row[name] is not None) == (decision.discriminator_updates > 0)


def test_a_game_that_is_only_watched_is_the_same_game(play: Make) -> None:
    """With and without control: weights and all metrics but those of control itself."""
    free, watched = play("free", num_steps=3), play("watched", num_steps=3, control={"window": 2})
    for output in ("model", "discriminator"):
        assert free.input_hash("align", output) == watched.input_hash("align", output)
    for row, other in zip(rows(free), rows(watched), strict=True):
        assert row == {name: value for name, value in other.items() if not name.startswith("control/")}
        assert other["control/policy_updates"] == 1 and other["control/replayed"] == 0
        assert not any(name.startswith("control/") for name in row)


def test_smoothed_labels_reach_the_discriminator_and_not_the_recorded_loss(play: Make) -> None:
    plain, smoothed = (
        rows(play(str(amount), decisions=[Decision(label_smoothing=amount)], control={}))[0] for amount in (0.0, 0.4)
    )
    assert smoothed["loss/discriminator"] == plain["loss/discriminator"]
    assert smoothed["discriminator/grad_norm"] < 0.9 * plain["discriminator/grad_norm"]


def test_replayed_rollouts_are_of_earlier_steps_and_stand_against_their_own_teacher(
    play: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    games: list[list[Any]] = []

    def spy(encoder: PromptEncoder, contests: Sequence[Any], *arguments: Any) -> ContestBatch:
        games.append(list(contests))
        return ContestBatch(encoder, contests, *arguments)

    monkeypatch.setattr(align, "ContestBatch", spy)
    decisions = [Decision(replay_share=share) for share in (0.5, 0.2, 0.5)]
    control = {"reactions": [{"type": "replay"}]}
    workspace = play("run", decisions=decisions, num_steps=3, control=control)
    teachers = {item.prompt.id: item.response for item in datasets.read_alignment(workspace, 170)}
    # Nothing is remembered at first; beside ten fresh ones 10 / 4 make a fifth, and ten the half.
    assert [row["control/replayed"] for row in rows(workspace)] == [0, 2, 10]
    for step, (contests, row) in enumerate(zip(games, rows(workspace), strict=True), 1):
        fresh, replayed = contests[:5], contests[5:]
        assert all(student.caption.endswith(f" {step}") for contest in fresh for student in contest.students)
        assert sum(len(contest.students) for contest in replayed) == row["control/replayed"]
        for contest in replayed:
            assert contest.teacher == teachers[contest.prompt.id]
            for student in contest.students:
                prompt_id, earlier = student.caption.split()
                assert prompt_id == contest.prompt.id and int(earlier) < step
        assert row["rollout/count"] == row["accuracy/count"] == 10


def test_a_reaction_follows_from_what_was_measured(play: Make) -> None:
    """Whatever is measured lies outside so narrow a band, and the step after it is played accordingly."""
    control = {
        "window": 1,
        "low": 0.998,
        "high": 0.999,
        "hysteresis": 0.0,
        "reactions": [{"type": "update-ratio", "hold_policy": True}, {"type": "replay", "on": "below"}],
    }
    workspace = play("run", num_steps=4, control=control)
    metrics, events = rows(workspace), rows(workspace, "events.jsonl")
    for before, after in itertools.pairwise(metrics):
        side = before["control/side"]
        assert side == (1 if before["control/accuracy"] > 0.999 else -1)
        assert after["control/discriminator_updates"] == (0 if side == 1 else 2)
        assert after["control/policy_updates"] == (1 if side == 1 else 0)
        assert after["control/replayed"] == (0 if side == 1 else 3)
        assert (after["discriminator/weight_change"] is None) == (side == 1)
    assert events[0]["step"] == 1 and events[0]["event"] == "start" and events[0]["reaction"] == "update-ratio"
    assert len(events) == sum(row["control/events"] for row in metrics)


FROZEN = {"window": 2, "limits": {"weight_change": [0.5, 0.9]}}
"""No update moves weights by half of their size."""


def test_a_failed_game_is_recorded_saved_and_not_played_on(play: Make, tmp_path: Path) -> None:
    with pytest.raises(AlignmentCollapseError, match="align: stopped after step 2: discriminator-frozen: ") as first:
        play("run", num_steps=5, control=FROZEN)
    stage = tmp_path / "run" / "seed-0" / "align"
    assert [path.name for path in list_checkpoints(stage / "checkpoints")] == ["step-000002"]
    kept = {name: (stage / name).read_bytes() for name in ("metrics.jsonl", "events.jsonl", "samples.jsonl")}
    assert [json.loads(line)["step"] for line in kept["metrics.jsonl"].splitlines()] == [1, 2]
    [event] = map(json.loads, kept["events.jsonl"].splitlines())
    assert (event["step"], event["event"], event["diagnosis"]) == (2, "stop", "discriminator-frozen")
    assert str(first.value).endswith(event["reason"])
    with pytest.raises(AlignmentCollapseError) as again:
        play("run", num_steps=5, control=FROZEN)
    assert str(again.value) == str(first.value)
    assert kept == {name: (stage / name).read_bytes() for name in kept}


def test_a_game_that_fails_in_its_last_step_has_failed(play: Make, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(AlignmentCollapseError, match="after step 2"):
            play("run", num_steps=2, control=FROZEN)
    assert not (tmp_path / "run" / "seed-0" / "align" / "model").exists()


def test_other_settings_begin_the_game_anew(play: Make) -> None:
    with pytest.raises(AlignmentCollapseError):
        play("run", num_steps=2, control=FROZEN)
    assert [row["step"] for row in rows(play("run", num_steps=2, control={}))] == [1, 2]


def test_scores_that_are_no_numbers_stop_the_game(play: Make, make_discriminator: Make, tmp_path: Path) -> None:
    broken = make_discriminator("moe")
    torch.nn.init.constant_(broken.head.weight, math.nan)
    broken.save_pretrained(tmp_path / "judge")
    with pytest.raises(NumericsError, match="discriminator scores is not finite in 25 of 25 places at step 1"):
        play("run")


def test_a_game_is_looked_back_upon_once_all_of_it_is_played(play: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off right behind its last step it is warned of again, and still but once."""
    seen: list[list[Any]] = []

    def warn(rows: Sequence[Any]) -> list[Diagnosis]:
        seen.append([row["step"] for row in rows])
        return [Diagnosis("rollouts-not-closer", "perception: accuracy 0.9", is_fatal=False)]

    def cut_off(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(align, "look_back", warn)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Workspace, "save_models", cut_off)
        play("run", num_steps=3)
    workspace = play("run", num_steps=3)
    assert seen == [[1, 2, 3], [1, 2, 3]]
    [event] = rows(workspace, "events.jsonl")
    assert event == {
        "step": 3,
        "event": "warning",
        "diagnosis": "rollouts-not-closer",
        "reason": "perception: accuracy 0.9",
    }


def test_a_game_without_a_warning_leaves_no_events(play: Make) -> None:
    workspace = play("run")
    assert rows(workspace) and not (workspace.stage_directory("align") / "events.jsonl").exists()
