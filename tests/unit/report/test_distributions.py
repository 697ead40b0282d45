"""Distributions beside the teacher's."""

import re
from collections.abc import Callable
from pathlib import Path

from prism.report.distributions import distributions_section, teacher_counts
from prism.report.rundir import read_run


def test_teacher_counts_are_summed_over_seeds(full_run: Path) -> None:
    assert teacher_counts(read_run(full_run), "num_items") == {8: 120, 9: 680}


def test_a_panel_for_every_checkpoint_field_and_mode(full_run: Path) -> None:
    section = str(distributions_section(read_run(full_run)))
    assert section.count("<figure>") == 7 * 2 * 2
    assert section.count('class="teacher"') == 7 * 2 * 2 + 1, "and one in the legend"


def test_alignment_lies_nearer_to_the_teacher_than_sft_when_sampled(full_run: Path) -> None:
    section = str(distributions_section(read_run(full_run)))
    sampled = section[section.index("Reasoning steps per response, sampled") :]
    distances = dict(re.findall(r"<figcaption>([^<]+)<small>d = ([\d.]+)", sampled)[:7])
    assert float(distances["PRISM"]) < 0.1 < float(distances["SFT"])


def test_without_the_teacher_it_says_so(make_run: Callable[..., Path]) -> None:
    run = make_run(seeds=(0,), stages=("sft",))
    (run / "seed-0" / "data" / "teacher_distribution.json").unlink()
    section = str(distributions_section(read_run(run)))
    assert "teacher's distribution was not recorded" in section.replace("&#x27;", "'")
    assert "d = " not in re.sub(r"<p.*?</p>", "", section)


def test_without_graded_responses_there_is_no_section(make_run: Callable[..., Path]) -> None:
    assert distributions_section(read_run(make_run(seeds=(0,), stages=("warmup",)))) is None
