"""The band and its reactions on hand-worked trajectories, and a game taken up again in the middle."""

import copy
import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from prism.config.control import ControlConfig
from prism.config.loading import build_config
from prism.errors import AlignmentCollapseError, NumericsError
from prism.stages.collapse import MEASURED
from prism.stages.control import Control, Decision, relative_change, scaled_rates, weight_sample

Row = dict[str, float | None]


def make_control(*reactions: dict[str, Any], window: int = 1, **fields: Any) -> Control:
    config = build_config(ControlConfig, fields | {"window": window, "reactions": list(reactions)}, (), source="test")
    return Control(config, {}, seed=0)


def make_row(perception: float | None, reasoning: float | None = None, **changes: float | None) -> Row:
    """A healthy step but for its accuracy; both views have the same unless two are given."""
    row: Row = dict.fromkeys(MEASURED, 1.0) | {
        "accuracy/count": 64,
        "discriminator/weight_change": 1e-4,
        "rollout/truncated_count": 0,
        "rollout/count": 64,
        "rollout/repetition": 0.01,
    }
    row |= {"accuracy/perception": perception, "gap/perception": 0.5}
    row |= {"accuracy/reasoning": perception if reasoning is None else reasoning, "gap/reasoning": 0.5}
    return row | {name.replace("_", "/", 1): value for name, value in changes.items()}


def play(control: Control, accuracies: Sequence[float | None]) -> tuple[list[Decision], list[dict[str, Any]]]:
    """The decision after each step, and all events."""
    decisions, events = [], []
    for step, accuracy in enumerate(accuracies, 1):
        events += control.observe(step, make_row(accuracy))[1]
        decisions.append(control.decision)
    return decisions, events


def test_without_configuration_nothing_is_decided_or_kept() -> None:
    state: dict[str, Any] = {}
    control = Control(None, state, seed=0)
    assert control.decision == Decision(1, 1, 0.0, 0.0, 1.0, 1.0)
    assert control.observe(1, {"gap/perception": math.nan}) == ({}, [])
    control.remember(1, [("p", "text")])
    control.check()
    assert control.replayed(1, 8) == {} and state == {}


def test_update_ratio_with_hysteresis() -> None:
    """Left above 0.85 and below 0.65; entered again below 0.80 and above 0.70, not between these and those."""
    accuracies = [0.75, 0.85, 0.86, 0.81, 0.79, 0.84, 0.65, 0.64, 0.69, 0.71, 0.66]
    decisions, events = play(make_control({"type": "update-ratio", "hold_policy": True}), accuracies)
    assert [decision.discriminator_updates for decision in decisions] == [1, 1, 0, 0, 1, 1, 1, 2, 2, 1, 1]
    assert [decision.policy_updates for decision in decisions] == [1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1]
    assert [(event["step"], event["event"], event["measured"]) for event in events] == [
        (3, "start", 0.86),
        (5, "end", 0.79),
        (8, "start", 0.64),
        (10, "end", 0.71),
    ]
    assert [event["changed"] for event in events[:3]] == [
        {"discriminator_updates": [1, 0]},
        {"discriminator_updates": [0, 1]},
        {"discriminator_updates": [1, 2], "policy_updates": [1, 0]},
    ]
    assert events[0]["reaction"] == "update-ratio"
    assert events[0]["reason"] == "accuracy 0.860 over 1 steps, above the band 0.65–0.85 since step 3"


def test_a_leap_across_the_band_turns_the_reaction_round() -> None:
    decisions, events = play(make_control({"type": "update-ratio"}), [0.9, 0.5, 0.9])
    assert [decision.discriminator_updates for decision in decisions] == [0, 2, 0]
    assert [event["event"] for event in events] == ["start", "turn", "turn"]


def test_the_first_window_is_waited_for_and_then_moves() -> None:
    """Three 0.9 and one 0.65 have the mean 0.8375; then 0.9, 0.9, 0.65, 0.99 have 0.86."""
    decisions, _ = play(make_control({"type": "update-ratio"}, window=4), [0.9, 0.9, 0.9, 0.65, 0.99])
    assert [decision.discriminator_updates for decision in decisions] == [1, 1, 1, 1, 0]


def test_accuracy_is_pooled_over_pairs_and_averaged_over_views() -> None:
    """Perception (0.9·10 + 0.5·30) / 40 = 0.6, reasoning 0.8 throughout."""
    control = make_control(window=2)
    control.observe(1, make_row(0.9, 0.8, accuracy_count=10))
    named, _ = control.observe(2, make_row(0.5, 0.8, accuracy_count=30))
    assert named["control/accuracy"] == pytest.approx(0.7)


def test_the_change_of_weights_is_that_of_one_update_at_the_configured_rate() -> None:
    """Else the reactions, twice the updates at twice the rate, would look like a discriminator gone wild."""
    reactions = ({"type": "update-ratio"}, {"type": "learning-rate", "factor": 0.5})
    control = make_control(*reactions)
    events = control.observe(1, make_row(0.6))[1]
    assert {event["event"] for event in events} == {"start"}
    assert (control.decision.discriminator_updates, control.decision.discriminator_rate) == (2, 2.0)
    control.observe(2, make_row(0.6) | {"discriminator/weight_change": 4 * 2.9e-3})
    assert not control.has_collapsed
    control.observe(3, make_row(0.6) | {"discriminator/weight_change": 4 * 3.1e-3})
    assert control.has_collapsed


def test_steps_without_a_valid_pair_say_nothing() -> None:
    control = make_control({"type": "update-ratio"}, window=2)
    for step, accuracy in enumerate([0.9, 0.9, None], 1):
        control.observe(step, make_row(accuracy))
    assert control.decision.discriminator_updates == 0  # the one that was measured is above
    named, events = control.observe(4, make_row(None))
    assert named["control/accuracy"] is None and events == []
    assert control.decision.discriminator_updates == 0  # not measured is not inside


def test_learning_rates_move_step_by_step_within_their_bounds_and_back() -> None:
    """Each view of the same trajectory: the discriminator is slowed above the band while the policy is hurried."""
    own = {"type": "learning-rate", "factor": 0.5, "minimum": 0.2, "maximum": 3.0}
    accuracies = [0.9, 0.9, 0.9, 0.75, 0.75, 0.75, 0.5, 0.5, 0.75, 0.75]
    decisions, events = play(make_control(own, own | {"model": "policy"}), accuracies)
    slowed = [0.5, 0.25, 0.2, 0.4, 0.8, 1.0, 2.0, 3.0, 1.5, 1.0]
    hurried = [2.0, 3.0, 3.0, 1.5, 1.0, 1.0, 0.5, 0.25, 0.5, 1.0]
    assert [decision.discriminator_rate for decision in decisions] == pytest.approx(slowed)
    assert [decision.policy_rate for decision in decisions] == pytest.approx(hurried)
    ends = [(event["step"], next(iter(event["changed"]))) for event in events if event["event"] == "end"]
    assert ends == [(5, "policy_rate"), (6, "discriminator_rate"), (10, "discriminator_rate"), (10, "policy_rate")]
    assert [event["step"] for event in events if event["event"] == "start"] == [1, 1, 7, 7]


def test_replay_and_label_smoothing_act_on_their_side() -> None:
    reactions = ({"type": "replay", "on": "below", "share": 0.3}, {"type": "label-smoothing", "amount": 0.2})
    decisions, _ = play(make_control(*reactions), [0.9, 0.75, 0.5, 0.75])
    assert [decision.label_smoothing for decision in decisions] == [0.2, 0, 0, 0]
    assert [decision.replay_share for decision in decisions] == [0, 0, 0.3, 0]


def test_a_later_reaction_waits_until_the_first_has_not_helped() -> None:
    reactions = ({"type": "label-smoothing"}, {"type": "update-ratio", "after": 2})
    decisions, events = play(make_control(*reactions), [0.9, 0.9, 0.9, 0.75, 0.9])
    assert [decision.label_smoothing > 0 for decision in decisions] == [True, True, True, False, True]
    assert [decision.discriminator_updates for decision in decisions] == [1, 1, 0, 1, 1]
    assert [(event["step"], event["reaction"]) for event in events if event["event"] == "start"] == [
        (1, "label-smoothing"),
        (3, "update-ratio"),
        (5, "label-smoothing"),
    ]


def test_the_row_holds_what_the_step_acted_on() -> None:
    control = make_control({"type": "label-smoothing"})
    first, _ = control.observe(1, make_row(0.9))
    second, _ = control.observe(2, make_row(0.75))
    assert (first["control/label_smoothing"], first["control/side"], first["control/events"]) == (0.0, 1, 1)
    assert (second["control/label_smoothing"], second["control/side"]) == (0.1, 0)
    assert second["control/discriminator_updates"] == 1


ALL_REACTIONS = (
    {"type": "update-ratio", "after": 1},
    {"type": "replay", "on": "below", "capacity": 20},
    {"type": "label-smoothing"},
    {"type": "learning-rate"},
    {"type": "learning-rate", "model": "policy", "after": 1},
)


def trajectory(num_steps: int) -> list[Row]:
    """Accuracy swings across the band with period 10."""
    return [make_row(0.75 + 0.2 * math.sin(step * math.pi / 5)) for step in range(num_steps)]


def run_part(control: Control, rows: Sequence[Row], first_step: int) -> list[Any]:
    trace: list[Any] = []
    for step, row in enumerate(rows, first_step):
        trace.append([control.decision, control.replayed(step, 12), control.observe(step, row)])
        control.remember(step, [(f"p{step % 3}", f"text {step}.{place}") for place in range(5)])
    return trace


@pytest.mark.parametrize("stop_after", [1, 7, 16])
def test_a_game_taken_up_again_is_the_uninterrupted_one(stop_after: int) -> None:
    rows = trajectory(30)
    whole = run_part(make_control(*ALL_REACTIONS, window=3), rows, 1)
    assert any(replayed for _, replayed, _ in whole)
    config = build_config(ControlConfig, {"window": 3, "reactions": list(ALL_REACTIONS)}, (), source="test")
    state: dict[str, Any] = {}
    before = run_part(Control(config, state, seed=0), rows[:stop_after], 1)
    stored = json.loads(json.dumps(state, allow_nan=False))
    assert stored == state
    assert before + run_part(Control(config, stored, seed=0), rows[stop_after:], stop_after + 1) == whole


def test_observing_does_not_alter_what_a_checkpoint_holds() -> None:
    config = build_config(ControlConfig, {"window": 2, "reactions": list(ALL_REACTIONS)}, (), source="test")
    state: dict[str, Any] = {}
    control = Control(config, state, seed=0)
    run_part(control, trajectory(6), 1)
    held, copied = dict(state), copy.deepcopy(state)
    run_part(control, trajectory(6), 7)
    assert held == copied


def test_replay_draws_its_share_from_earlier_steps() -> None:
    """share / (1 − share) = 1/3 of 30 fresh ones makes 10; no rollout twice; grouped by prompt."""
    control = make_control({"type": "replay", "share": 0.25, "capacity": 40})
    control.observe(1, make_row(0.9))
    assert control.replayed(2, 30) == {}  # nothing is remembered yet
    control.remember(1, [(f"p{place % 4}", f"text {place}") for place in range(16)])
    drawn = control.replayed(2, 30)
    texts = [text for kept in drawn.values() for text in kept]
    assert len(texts) == len(set(texts)) == 10
    assert all(int(text.split()[1]) % 4 == int(prompt_id[1]) for prompt_id, kept in drawn.items() for text in kept)
    assert len([text for kept in control.replayed(2, 300).values() for text in kept]) == 16
    assert control.replayed(3, 30) != drawn  # each step draws anew


def test_replay_keeps_a_uniform_sample_of_all_rollouts() -> None:
    """5 of 20 kept: each with probability 1/4, early or late, over 400 games within 4.5 standard deviations."""
    counts: Counter[str] = Counter()
    for seed in range(400):
        config = build_config(ControlConfig, {"reactions": [{"type": "replay", "capacity": 5}]}, (), source="test")
        state: dict[str, Any] = {}
        control = Control(config, state, seed=seed)
        for step in range(4):
            control.remember(step, [("p", str(5 * step + place)) for place in range(5)])
        assert len(state["replay"]["rollouts"]) == 5 and state["replay"]["num_seen"] == 20
        counts.update(text for _, text in state["replay"]["rollouts"])
    assert len(counts) == 20
    assert all(abs(count - 100) < 4.5 * math.sqrt(400 / 4 * 3 / 4) for count in counts.values())


def test_a_missing_measurement_is_a_mistake_and_nan_an_error_that_names_it() -> None:
    row = make_row(0.7)
    del row["rollout/entropy"]
    with pytest.raises(KeyError, match="rollout/entropy"):
        make_control().observe(1, row)
    with pytest.raises(NumericsError, match="gap/reasoning is nan at step 3"):
        make_control().observe(3, make_row(0.7, gap_reasoning=math.nan))


def test_a_failed_game_stays_failed_after_it_is_taken_up_again() -> None:
    config, state = ControlConfig(window=2), {}
    control = Control(config, state, seed=0)
    control.observe(1, make_row(0.7, rollout_valid_fraction=0.25))
    control.check()
    named, events = control.observe(2, make_row(0.7, rollout_valid_fraction=0.5))
    assert control.has_collapsed and named["control/events"] == 1
    assert [(event["step"], event["event"], event["diagnosis"]) for event in events] == [
        (2, "stop", "rollouts-invalid")
    ]
    taken_up = Control(config, json.loads(json.dumps(state)), seed=0)
    for each in (control, taken_up):
        with pytest.raises(AlignmentCollapseError) as caught:
            each.check()
        assert str(caught.value).startswith(
            "align: stopped after step 2: rollouts-invalid: only 38% of the rollouts of steps 1–2 kept the format; "
        )
        assert "\n" not in str(caught.value)


def test_relative_change_of_weights() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(20, 20), torch.nn.Linear(20, 3, bias=False))
    before = weight_sample(module)
    assert before.trained.numel() == 64 + 20 + 60 and before.size == pytest.approx(float(before.trained.norm()))
    assert relative_change(before, module) == 0
    with torch.no_grad():
        for weights in module.parameters():
            weights *= 1.002
    assert relative_change(before, module) == pytest.approx(0.002, rel=1e-3)
    for weights in module.parameters():
        weights.requires_grad_(False)
    assert relative_change(weight_sample(module), module) == 0


def test_adapters_are_measured_beside_the_weights_they_change() -> None:
    """The same step, over the size of all weights: a tenth of it where the frozen ones are three times as large."""
    torch.manual_seed(0)
    adapter, frozen = torch.nn.Linear(8, 8, bias=False), torch.nn.Linear(8, 8, bias=False)
    alone = torch.nn.Sequential(adapter)
    with torch.no_grad():
        frozen.weight *= 3 * adapter.weight.norm() / frozen.weight.norm()
    frozen.weight.requires_grad_(False)
    together = torch.nn.Sequential(adapter, frozen)
    samples = weight_sample(alone), weight_sample(together)
    with torch.no_grad():
        adapter.weight += 0.01
    found = relative_change(samples[0], alone), relative_change(samples[1], together)
    assert found[0] / found[1] == pytest.approx(10**0.5, rel=1e-5)


def test_rates_are_scaled_for_the_block_alone() -> None:
    """Every group by the same factor, and back even where the block fails; twice is not the square."""
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [weights[0]], "lr": 0.1}, {"params": [weights[1]], "lr": 0.3}])
    for _ in range(2):
        with scaled_rates(optimizer, 0.25):
            assert [group["lr"] for group in optimizer.param_groups] == [0.1 * 0.25, 0.3 * 0.25]
            weights[0].grad = torch.ones(2)
            optimizer.step()
    assert weights[0].tolist() == pytest.approx([0.95, 0.95])
    with pytest.raises(NumericsError), scaled_rates(optimizer, 4.0):
        raise NumericsError
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.3]
