"""Rollouts drawn by several processes are those that one would draw."""

from collections.abc import Sequence
from typing import Any

import pytest

from prism.records import Prompt, Rollout, RolloutGroup
from prism.rollout import Sampling, SpreadEngine, spread
from prism.rollout.engine import Stream, streams
from prism.runtime import distributed

PROMPTS = [Prompt(name, "q") for name in ("a", "b", "a", "c", "d")]


class Teller:
    """A rollout tells the stream it was drawn from; what was asked for is kept."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        num_samples: int,
        sampling: Sampling,
        seed: int,
        sources: Sequence[Stream] | None = None,
    ) -> list[RolloutGroup]:
        self.asked.append([prompt.id for prompt in prompts])
        found = sources or streams(prompts, seed)
        return [
            RolloutGroup(
                prompt, tuple(Rollout(sample, (sample,), f"{source} {sample}", True) for sample in range(num_samples))
            )
            for prompt, source in zip(prompts, found, strict=True)
        ]

    def update_weights(self, weights: Any) -> None:
        self.asked.append(["weights"])

    def sleep(self) -> None:
        self.asked.append(["sleep"])

    def close(self) -> None:
        self.asked.append(["close"])


def sample(engine: Any) -> list[RolloutGroup]:
    return engine.generate(PROMPTS, num_samples=2, sampling=Sampling(1.0, 4), seed=7)


def test_every_process_draws_some_and_has_all(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = sample(Teller())
    monkeypatch.setattr(distributed, "num_processes", lambda: 2)
    drawn: list[Any] = []
    asked = []
    for index in (0, 1):
        monkeypatch.setattr(distributed, "process_index", lambda index=index: index)
        monkeypatch.setattr(spread, "gather", lambda values: drawn.extend(values) or values)
        teller = Teller()
        with pytest.raises(KeyError):  # what the other process drew is missing
            sample(SpreadEngine(teller, batch_size=4))
        asked += teller.asked
    # Two prompts fill a batch; the second "a" keeps the stream it has among all prompts.
    assert asked == [["a", "b", "d"], ["a", "c"]]
    monkeypatch.setattr(spread, "gather", lambda values: drawn)
    assert sample(SpreadEngine(Teller(), batch_size=4)) == alone


def test_the_rest_is_the_own_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    teller = Teller()
    engine = SpreadEngine(teller, batch_size=4)
    engine.update_weights([])
    engine.sleep()
    engine.close()
    assert teller.asked == [["weights"], ["sleep"], ["close"]]
