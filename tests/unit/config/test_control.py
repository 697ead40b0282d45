"""Collapse control in a recipe: defaults, the four reactions, and what does not hold together."""

from typing import Any

import pytest

from prism.config.control import ControlConfig, LabelSmoothing, LearningRate, Replay, UpdateRatio
from prism.config.loading import build_config
from prism.config.training import AlignConfig
from prism.errors import ConfigError


def load(table: dict[str, Any], *overrides: str) -> ControlConfig:
    return build_config(ControlConfig, table, overrides, source="recipe")


def reactions(*tables: dict[str, Any]) -> dict[str, Any]:
    return {"reactions": list(tables)}


def test_an_empty_table_only_watches() -> None:
    config = load({})
    assert (config.low, config.high, config.reactions, config.replay) == (0.65, 0.85, (), None)


def test_alignment_is_not_watched_unless_asked_to() -> None:
    def control(*overrides: str) -> ControlConfig | None:
        return build_config(AlignConfig, {"num_steps": 1}, overrides, source="recipe").control

    assert control() is None
    assert control("control={}") == ControlConfig()
    assert control("control.window=4") == ControlConfig(window=4)
    assert control("control.window=4", "control=none") is None


def test_reactions_keep_their_order() -> None:
    kinds = ("replay", "learning-rate", "update-ratio", "label-smoothing")
    config = load(reactions(*({"type": kind} for kind in kinds)), "reactions.update-ratio.discriminator_above=1")
    assert [type(reaction) for reaction in config.reactions] == [Replay, LearningRate, UpdateRatio, LabelSmoothing]
    assert config.replay is config.reactions[0]


@pytest.mark.parametrize("idle", [{"type": "label-smoothing"}, {"type": "replay"}])
def test_what_would_change_updates_that_do_not_happen_is_refused(idle: dict[str, Any]) -> None:
    for ratio in ({"type": "update-ratio"}, {"type": "update-ratio", "after": 2}):
        with pytest.raises(ConfigError, match=r"changes updates .* where update-ratio leaves none"):
            load(reactions(ratio, idle | {"after": 2}))
    load(reactions({"type": "update-ratio", "after": 2}, idle))  # which acts for two steps before updates cease
    load(reactions({"type": "update-ratio", "discriminator_above": 1}, idle))
    load(reactions({"type": "update-ratio"}, {"type": "replay", "on": "below"}, {"type": "learning-rate"}))


def test_learning_rates_may_be_scaled_once_per_model() -> None:
    config = load(reactions({"type": "learning-rate"}, {"type": "learning-rate", "model": "policy"}))
    assert len(config.reactions) == 2


def test_a_reaction_is_overridden_by_its_type() -> None:
    config = load(reactions({"type": "replay"}), "reactions.replay.share=0.5")
    assert config.replay is not None and config.replay.share == 0.5


def test_the_tightest_hysteresis() -> None:
    assert load({"low": 0.6, "high": 0.7, "hysteresis": 0.05}).hysteresis == 0.05


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"low": 0.9}, "high = 0.85: must be greater than low (0.9)"),
        ({"hysteresis": 0.11}, "hysteresis = 0.11: must not exceed half of high - low"),
        ({"window": 0}, "window = 0: must be"),
        (reactions({"type": "replay"}, {"type": "replay"}), 'reactions.1.type = "replay": replay is given twice'),
        (
            reactions({"type": "learning-rate"}, {"type": "replay"}, {"type": "learning-rate"}),
            'reactions.2.type = "learning-rate": learning-rate of the discriminator is given twice',
        ),
        (reactions({"type": "update-ratio", "discriminator_above": 1, "discriminator_below": 1}), "reactions.0"),
        (reactions({"type": "label-smoothing", "amount": 0.5}), "reactions.0.amount = 0.5"),
        (reactions({"type": "learning-rate", "factor": 1.0}), "reactions.0.factor = 1.0"),
        (reactions({"type": "learning-rate", "minimum": 2.0}), "reactions.0.minimum = 2.0"),
        (reactions({"type": "replay", "share": 1.0}), "reactions.0.share = 1.0"),
        (reactions({"type": "freeze"}), "reactions.0"),
        ({"limits": {"length": [2.0, 0.5]}}, "limits.length"),
        ({"limits": {"length": [0.5]}}, "limits.length"),
        ({"limits": {"entropi": [0.5, 1.0]}}, "entropi"),
    ],
)
def test_what_does_not_hold_together_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(table)
    assert message in str(caught.value) and "\n" not in str(caught.value)
