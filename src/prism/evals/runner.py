"""Asks a policy every question of an evaluation, in batches that a killed run goes on from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from prism.records import Prompt, Rollout
from prism.rollout.sampling import RolloutEngine, Sampling
from prism.runtime.distributed import from_first, spread_out
from prism.runtime.jsonl import read_jsonl
from prism.runtime.stage import StageRun

Grade = Callable[[Prompt, Rollout], dict[str, Any]]
"""What is kept of one answer: a JSON-able row."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """One pass over the questions: `mode` is its name, `num_samples` the answers to each question."""

    mode: str
    num_samples: int
    sampling: Sampling


def decodings(*, num_samples: int, temperature: float, max_tokens: int, greedy: bool = True) -> list[Decoding]:
    """Once greedily and `num_samples` times sampled: greedy decoding alone hides how far a policy has drifted."""
    found = [Decoding("greedy", 1, Sampling(0.0, max_tokens))] if greedy else []
    if num_samples:
        found.append(Decoding("sampled", num_samples, Sampling(temperature, max_tokens)))
    return found


@dataclass(frozen=True, slots=True)
class Questioning:
    """The batches of an evaluation, `batches_per_step` in a step of its run; a batch has at most `batch_size` answers.

    Processes that evaluate together draw different batches of a step.
    """

    prompts: Sequence[Prompt]
    decodings: Sequence[Decoding]
    batch_size: int
    seed: int
    batches_per_step: int = 1

    @property
    def num_steps(self) -> int:
        return sum(1 for _ in self._batches())

    def _batches(self) -> Iterator[tuple[Decoding, Sequence[Prompt]]]:
        for decoding in self.decodings:
            count = self.batches_per_step * max(1, self.batch_size // decoding.num_samples)
            for start in range(0, len(self.prompts), count):
                yield decoding, self.prompts[start : start + count]

    def ask(self, run: StageRun, engine: RolloutEngine, grade: Grade, log: str) -> list[dict[str, Any]]:
        """Appends one row per answer to the file `log` of `run` and returns all of them, greedy ones first."""
        batches = list(self._batches())
        for step in run.steps():
            decoding, prompts = batches[step - 1]
            groups = engine.generate(
                prompts, num_samples=decoding.num_samples, sampling=decoding.sampling, seed=self.seed
            )
            answers = [(group.prompt, rollout) for group in groups for rollout in group.rollouts]
            for row in spread_out(lambda answer: grade(*answer), answers):
                run.log(log).append({"mode": decoding.mode, **row})
            counted = [rollout.num_tokens for group in groups for rollout in group.rollouts]
            lengths = [length for length in counted if length is not None]
            run.record(step, {"rollout/length": fmean(lengths) if lengths else None}, tokens=sum(lengths))
        return from_first(lambda: read_jsonl(run.log(log).path))
