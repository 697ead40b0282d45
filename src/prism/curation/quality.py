"""How good a demonstration is for alignment, and how much a problem teaches in RL: two numbers from 0 to 1.

The quality of a demonstration is the weighted mean of its signals, each from 0 to 1. What nobody has measured earns
nothing, so that a checked row goes before one that was not looked at:

    verified    1 if its answer was verified
    agreement   the share of the teacher's samples that were verified
    difficulty  1 − pass rate of the policy
    grounding   items of the description, over `enough_items`, halved by one number in the reasoning that rests on
                nothing, a third with two, and so on
    reasoning   steps of the reasoning, over `enough_steps`
    first_try   1 if the format was right without a repair

The use of a problem in RL is 4p(1 − p) of its pass rate p, the variance of its reward relative to the largest there
is: a group in which all rollouts fare alike has no advantages to learn from. It is lowered by the share of samples
that nobody could verify, since their rewards are missing.
"""

from collections.abc import Mapping
from typing import Any

from prism.config.selection import QualityWeights, SplitConfig
from prism.curation.demonstration import Demonstrated
from prism.records import Response
from prism.rewards import num_description_items, num_reasoning_steps


def demonstration_signals(
    shown: Demonstrated, response: Response, difficulty: Mapping[str, Any], config: SplitConfig
) -> dict[str, float]:
    """Those that were measured; `response` is the text of `shown`, valid."""
    items, steps = num_description_items(response.caption or ""), num_reasoning_steps(response.think or "")
    pass_rate = difficulty.get("pass_rate")
    signals = {
        "verified": float(shown.is_verified),
        "agreement": shown.agreement,
        "difficulty": None if pass_rate is None else 1.0 - pass_rate,
        "grounding": min(1.0, items / config.enough_items) / (1 + shown.num_from_nowhere),
        "reasoning": min(1.0, steps / config.enough_steps),
        "first_try": None if shown.is_repaired is None else float(not shown.is_repaired),
    }
    return {name: round(value, 4) for name, value in signals.items() if value is not None}


def quality(signals: Mapping[str, float], weights: QualityWeights) -> float:
    weighed = weights.model_dump()
    return sum(weight * signals.get(name, 0.0) for name, weight in weighed.items()) / sum(weighed.values())


def use_in_rl(difficulty: Mapping[str, Any]) -> float:
    pass_rate, num_unverifiable = difficulty["pass_rate"], difficulty["num_unverifiable"]
    share_verified = difficulty["num_samples"] / (difficulty["num_samples"] + num_unverifiable)
    return 4 * pass_rate * (1 - pass_rate) * share_verified
