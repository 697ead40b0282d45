"""Collapse control: keeps the discriminator's accuracy in a band and stops a game that has failed.

`advance` is the whole of it, a pure function from one step's metrics and the state before to the state
after, the events and what the next step does differently. The state is JSON and travels with the
checkpoint, so that a resumed game reacts as one that never stopped.

    control = Control(config.control, state, seed=seed)          # `state` is also given to the checkpoint
    control.check()                                              # a game that has failed does not go on
    for step in run.steps():
        decision = control.decision
        …                                                        # the step, as decided
        named, events = control.observe(step, metrics)
        …                                                        # record both, save where it has collapsed
        control.check()

Without a configuration every decision is the paper's and nothing is observed.
"""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from prism.config.control import AnyReaction, ControlConfig, LabelSmoothing, LearningRate, Replay, UpdateRatio
from prism.errors import AlignmentCollapseError
from prism.models.sharding import own_part
from prism.runtime.distributed import from_first
from prism.runtime.metrics import check_finite
from prism.runtime.seeding import python_random
from prism.stages.collapse import (
    COMPARED,
    MEASURED,
    WEIGHT_CHANGE,
    Evidence,
    find_collapses,
    mean,
    pooled,
    views_of_row,
)

Side = Literal["inside", "above", "below"]
Event = dict[str, Any]
_SIGN = {"below": -1, "inside": 0, "above": 1}


@dataclass(frozen=True, slots=True)
class Decision:
    """What a step does; the defaults are the paper's. `policy_updates` is 0 or 1; rates are factors on the
    configured learning rates."""

    discriminator_updates: int = 1
    policy_updates: int = 1
    replay_share: float = 0.0
    label_smoothing: float = 0.0
    discriminator_rate: float = 1.0
    policy_rate: float = 1.0


_NEUTRAL = asdict(Decision())


def initial_state() -> dict[str, Any]:
    return {
        "rows": [],
        "beginning": None,
        "side": "inside",
        "num_outside": 0,
        "decision": dict(_NEUTRAL),
        "collapse": None,
        "warned": [],
    }


def advance(
    config: ControlConfig, state: Mapping[str, Any], step: int, metrics: Mapping[str, float | None]
) -> tuple[dict[str, Any], list[Event]]:
    """The state after `step`, which measured `metrics`, and what happened.

    KeyError unless `metrics` has all of `MEASURED` and NumericsError where one of them is not finite.
    """
    rows = [*state["rows"], _measured(step, metrics, state["decision"])][-2 * config.window :]
    recent, earlier = rows[-config.window :], rows[: -config.window]
    after = dict(state) | {"rows": rows}
    if len(recent) < config.window:
        return after, []
    is_beginning = state["beginning"] is None
    beginning = {name: mean(recent, name) for name in COMPARED} if is_beginning else state["beginning"]
    after["beginning"] = beginning
    accuracy = band_accuracy(recent)
    after["side"] = _side(config, state["side"], accuracy)
    is_same_side = after["side"] == state["side"]
    after["num_outside"] = 0 if after["side"] == "inside" else state["num_outside"] + 1 if is_same_side else 1
    after["decision"], events = _react(config, after, step, accuracy)
    found = find_collapses(Evidence(recent, earlier, beginning, is_beginning), config.limits)
    if fatal := [diagnosis for diagnosis in found if diagnosis.is_fatal]:
        after["collapse"] = {"step": step, "name": fatal[0].name, "line": fatal[0].line}
    warnings = [diagnosis for diagnosis in found if not diagnosis.is_fatal]
    after["warned"] = [warning.name for warning in warnings]
    fresh = [warning for warning in warnings if warning.name not in state["warned"]]
    events += [diagnosis.event(step) for diagnosis in (*fatal, *fresh)]
    return after, events


def band_accuracy(rows: Sequence[Mapping[str, float | None]]) -> float | None:
    """Accuracy over all pairs of `rows`, mean of the views; None without pairs."""
    accuracies = [pooled(rows, f"accuracy/{view}")[0] for view in views_of_row(rows[-1])]
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    return sum(known) / len(known) if known else None


def _measured(step: int, metrics: Mapping[str, float | None], acted_on: Mapping[str, Any]) -> dict[str, float | None]:
    """What is kept of a step's metrics; the change of weights is that of one update at the configured rate, so that
    more updates and a higher rate, which a reaction may have brought, are not taken for a discriminator gone wild."""
    views = views_of_row(metrics)
    names = (*MEASURED, *(f"{kind}/{view}" for kind in ("accuracy", "gap") for view in views))
    row: dict[str, float | None] = {"step": step} | {name: metrics[name] for name in names}
    for name, value in row.items():
        if value is not None:
            check_finite(name, value, step)
    change = row[WEIGHT_CHANGE]
    if change is not None and acted_on["discriminator_updates"]:
        row[WEIGHT_CHANGE] = change / (acted_on["discriminator_updates"] * acted_on["discriminator_rate"])
    return row


def _side(config: ControlConfig, before: Side, accuracy: float | None) -> Side:
    """Where accuracy is; a side that was entered is left only `hysteresis` inside the band."""
    if accuracy is None:
        return before
    if accuracy > config.high or (before == "above" and accuracy > config.high - config.hysteresis):
        return "above"
    if accuracy < config.low or (before == "below" and accuracy < config.low + config.hysteresis):
        return "below"
    return "inside"


def _react(
    config: ControlConfig, state: Mapping[str, Any], step: int, accuracy: float | None
) -> tuple[dict[str, Any], list[Event]]:
    """The decision for the next step, and an event for each reaction that starts, ends or turns round."""
    decision, events = dict(state["decision"]), []
    for reaction in config.reactions:
        side: Side = state["side"] if state["num_outside"] > reaction.after else "inside"
        before = dict(decision)
        decision |= _settings(reaction, side, before)
        changed = {name: [before[name], value] for name, value in decision.items() if value != before[name]}
        was, now = ([_sign(values[name] - _NEUTRAL[name]) for name in changed] for values in (before, decision))
        if was != now:
            kind = "start" if not any(was) else "turn" if any(now) else "end"
            reason = _reason(config, state, step, accuracy)
            event = {"step": step, "event": kind, "reaction": reaction.type, "reason": reason}
            events.append(event | {"measured": accuracy, "changed": changed})
    return decision, events


def _reason(config: ControlConfig, state: Mapping[str, Any], step: int, accuracy: float | None) -> str:
    measured = "no valid pair" if accuracy is None else f"accuracy {accuracy:.3f}"
    since = f" since step {step - state['num_outside'] + 1}" if state["num_outside"] else ""
    return f"{measured} over {config.window} steps, {state['side']} the band {config.low}–{config.high}{since}"


def _settings(reaction: AnyReaction, side: Side, before: Mapping[str, Any]) -> dict[str, Any]:
    """What `reaction` makes of its part of the decision while accuracy is on `side`."""
    if isinstance(reaction, UpdateRatio):
        updates = {"above": reaction.discriminator_above, "inside": 1, "below": reaction.discriminator_below}
        holds = reaction.hold_policy and side == "below"
        return {"discriminator_updates": updates[side], "policy_updates": 0 if holds else 1}
    if isinstance(reaction, Replay):
        return {"replay_share": reaction.share if side == reaction.on else 0.0}
    if isinstance(reaction, LabelSmoothing):
        return {"label_smoothing": reaction.amount if side == "above" else 0.0}
    name = f"{reaction.model}_rate"
    return {name: _rate(reaction, side, before[name])}


def _rate(reaction: LearningRate, side: Side, before: float) -> float:
    slower, faster = before * reaction.factor, before / reaction.factor
    if side == "inside":
        return min(1.0, faster) if before < 1 else max(1.0, slower)
    is_slowed = (side == "above") == (reaction.model == "discriminator")
    return max(reaction.minimum, slower) if is_slowed else min(reaction.maximum, faster)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


class Control:
    """The state machine at work in a stage, or, without `config`, nothing at all.

    `state` is the stage's bookkeeping as a checkpoint keeps it, after it has been restored.
    """

    def __init__(self, config: ControlConfig | None, state: MutableMapping[str, Any], *, seed: int) -> None:
        self._config, self._state, self._seed = config, state, seed
        if config is not None and not state:
            state.update(initial_state())
            if config.replay is not None:
                state["replay"] = {"num_seen": 0, "rollouts": []}

    @property
    def decision(self) -> Decision:
        """What the coming step does."""
        return Decision() if self._config is None else Decision(**self._state["decision"])

    def observe(self, step: int, metrics: Mapping[str, float | None]) -> tuple[dict[str, float | None], list[Event]]:
        """Takes in what `step` measured; what to record of it: metrics (with the decision it acted on), events."""
        if self._config is None:
            return {}, []
        acted_on = self._state["decision"]
        after, events = advance(self._config, self._state, step, metrics)
        self._state.update(after)
        named = {
            "control/accuracy": band_accuracy(after["rows"][-self._config.window :]),
            "control/side": _SIGN[after["side"]],
            "control/events": len(events),
        }
        return named | {f"control/{name}": value for name, value in acted_on.items()}, events

    @property
    def has_collapsed(self) -> bool:
        return self._state.get("collapse") is not None

    def check(self) -> None:
        """Raises AlignmentCollapseError if a step so far, of this or of an earlier process, found the game failed."""
        if self.has_collapsed:
            found = self._state["collapse"]
            raise AlignmentCollapseError(f"align: stopped after step {found['step']}: {found['name']}: {found['line']}")

    def remember(self, step: int, rollouts: Iterable[tuple[str, str]]) -> None:
        """Takes in this step's valid rollouts, as (prompt id, text), where rollouts are replayed at all.

        What is kept is a uniform sample of all that were ever taken in (algorithm R).
        """
        if self._config is None or self._config.replay is None:
            return
        kept, num_seen = list(self._state["replay"]["rollouts"]), self._state["replay"]["num_seen"]
        random = python_random(self._seed, "replay-keep", step)
        for prompt_id, text in rollouts:
            num_seen += 1
            if len(kept) < self._config.replay.capacity:
                kept.append([prompt_id, text])
            elif (place := random.randrange(num_seen)) < len(kept):
                kept[place] = [prompt_id, text]
        self._state["replay"] = {"num_seen": num_seen, "rollouts": kept}

    def replayed(self, step: int, num_fresh: int) -> dict[str, list[str]]:
        """Texts by prompt id that make up the decided share of a batch beside `num_fresh` rollouts of this step."""
        share = self.decision.replay_share
        if not share:
            return {}
        kept = self._state["replay"]["rollouts"]
        count = min(len(kept), round(num_fresh * share / (1 - share)))
        texts: dict[str, list[str]] = {}
        for prompt_id, text in python_random(self._seed, "replay-draw", step).sample(kept, count):
            texts.setdefault(prompt_id, []).append(text)
        return texts


@contextmanager
def scaled_rates(optimizer: Optimizer, factor: float) -> Iterator[None]:
    """Within the block the learning rates of `optimizer` are `factor` times what they are before and after it.

    So a checkpoint never holds a scaled rate, and the factors of several steps do not multiply.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


_WEIGHTS_PER_TENSOR = 64


@dataclass(frozen=True, slots=True, eq=False)
class WeightSample:
    """The first few weights of every tensor that `trained`, and the size (norm) of that sample over all tensors.

    Low-rank adapters are small beside the weights that they change: over their own size every step of theirs is a leap.
    """

    trained: Tensor
    size: float


@torch.no_grad()
def weight_sample(module: nn.Module) -> WeightSample:
    """Enough to see whether an update moved the module, and how far; under sharding of this process's part."""
    trained, frozen = [], []
    for weights in module.parameters():
        part = own_part(weights.detach()).flatten()[:_WEIGHTS_PER_TENSOR].float()
        (trained if weights.requires_grad else frozen).append(part)
    sample = torch.cat(trained) if trained else torch.zeros(0)
    return WeightSample(sample, float(torch.cat([sample, *frozen]).norm()))


def relative_change(before: WeightSample, module: nn.Module) -> float:
    """How far `module` has moved from the sample taken before, over its size."""
    if before.trained.numel() == 0:
        return 0.0  # nothing trains
    return from_first(lambda: float((weight_sample(module).trained - before.trained).norm()) / before.size)
