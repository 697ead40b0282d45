"""In which order prompts are asked, and that a run that was cut off asks only what is left."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from prism.evals.grading import grade
from prism.evals.runner import Decoding, Questioning, decodings
from prism.evals.summary import summarize
from prism.records import Prompt, Rollout, RolloutGroup
from prism.rollout.sampling import Sampling
from prism.runtime.stage import StageRun

GOOD = "<caption>a,\u2028b</caption><think>1. x\n2. y</think><answer>5</answer>"
GREEDY, SAMPLED = Sampling(0.0, 9), Sampling(0.7, 9)


class Recorder:
    """Answers every prompt well and keeps what it was asked; breaks at call number `breaks_at`."""

    def __init__(self, breaks_at: int | None = None) -> None:
        self.calls: list[tuple[list[str], int, Sampling, int]] = []
        self._breaks_at = breaks_at

    def generate(
        self, prompts: Sequence[Prompt], *, num_samples: int, sampling: Sampling, seed: int
    ) -> list[RolloutGroup]:
        if len(self.calls) == self._breaks_at:
            raise KeyboardInterrupt
        self.calls.append(([prompt.id for prompt in prompts], num_samples, sampling, seed))
        return [
            RolloutGroup(prompt, tuple(Rollout(sample, (7, 8, 9), GOOD, True) for sample in range(num_samples)))
            for prompt in prompts
        ]


def make_questioning(count: int, *, num_samples: int, batch_size: int) -> Questioning:
    prompts = [
        Prompt(str(index), "q", answer="5", metadata={"benchmark": "b", "group": "in-distribution"})
        for index in range(count)
    ]
    modes = decodings(num_samples=num_samples, temperature=0.7, max_tokens=9)
    return Questioning(prompts, modes, batch_size=batch_size, seed=4)


def ask(directory: Path, questioning: Questioning, engine: Recorder) -> list[dict[str, Any]]:
    run = StageRun(
        directory,
        name="evaluation",
        kind="evaluation",
        config={},
        inputs={},
        num_steps=questioning.num_steps,
        checkpoint_every=1,
        seed=0,
    )
    rows = questioning.ask(run, engine, partial(grade, described_fraction=lambda prompt, caption: 0.5), "items.jsonl")
    run.finish({"items": "items.jsonl"})
    return rows


def test_each_prompt_is_answered_greedily_once_and_then_sampled(tmp_path: Path) -> None:
    engine = Recorder()
    rows = ask(tmp_path / "run", make_questioning(5, num_samples=3, batch_size=4), engine)
    greedy = [["0", "1", "2", "3"], ["4"]]
    sampled = [["0"], ["1"], ["2"], ["3"], ["4"]]
    assert engine.calls == [(ids, 1, GREEDY, 4) for ids in greedy] + [(ids, 3, SAMPLED, 4) for ids in sampled]
    assert [(row["mode"], row["item_id"], row["sample"]) for row in rows] == [
        *(("greedy", str(index), 0) for index in range(5)),
        *(("sampled", str(index), sample) for index in range(5) for sample in range(3)),
    ]


def test_a_step_may_hold_several_batches_and_the_rows_are_the_same(tmp_path: Path) -> None:
    one, several, engine = make_questioning(5, num_samples=3, batch_size=4), Recorder(), Recorder()
    rows = ask(tmp_path / "one", one, engine)
    assert ask(tmp_path / "several", dataclasses.replace(one, batches_per_step=2), several) == rows
    assert [ids for ids, *_ in several.calls] == [["0", "1", "2", "3", "4"], ["0", "1"], ["2", "3"], ["4"]]


def test_a_run_that_was_cut_off_asks_only_what_is_left(tmp_path: Path) -> None:
    questioning = make_questioning(5, num_samples=2, batch_size=4)
    whole = ask(tmp_path / "whole", questioning, Recorder())
    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path / "run", questioning, Recorder(breaks_at=3))
    later = Recorder()
    assert ask(tmp_path / "run", questioning, later) == whole
    assert [ids for ids, *_ in later.calls] == [["2", "3"], ["4"]]
    assert (tmp_path / "run/items.jsonl").read_bytes() == (tmp_path / "whole/items.jsonl").read_bytes()
    assert len(whole) == 15 and whole[0]["response"] == GOOD  # also with a line separator inside


def test_modes_are_what_was_asked_for() -> None:
    assert decodings(num_samples=0, temperature=0.7, max_tokens=9) == [Decoding("greedy", 1, GREEDY)]
    assert decodings(num_samples=2, temperature=0.7, max_tokens=9, greedy=False) == [Decoding("sampled", 2, SAMPLED)]


def test_rows_are_what_the_summary_reads(tmp_path: Path) -> None:
    rows = ask(tmp_path / "run", make_questioning(4, num_samples=0, batch_size=3), Recorder())
    summary = summarize(rows, checkpoint="sft", checkpoint_sha256="0" * 64)
    assert summary["num_items"] == 4
    assert summary["benchmarks"]["b"]["greedy"]["accuracy"]["mean"] == 1
    assert summary["benchmarks"]["b"]["sampled"]["accuracy"]["count"] == 0
