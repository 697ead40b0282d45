"""Names and colours of stages."""

from collections.abc import Callable
from pathlib import Path

import pytest

from prism.report.identity import stage_colour, stage_title
from prism.report.rundir import read_run


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("base", "Base"),
        ("align", "PRISM"),
        ("sft-grpo", "SFT → GRPO"),
        ("second-sft", "Second SFT"),
        ("second-sft-grpo", "Second SFT → GRPO"),
        ("prism-dapo", "PRISM → DAPO"),
        ("prism-low-rate", "PRISM → low-rate"),
        ("odd-name", "odd-name"),
    ],
)
def test_titles(name: str, title: str) -> None:
    assert stage_title(name) == title


def test_variants_of_ones_own_get_colours_of_their_own(make_run: Callable[..., Path], add_stage: Callable) -> None:
    path = make_run(seeds=(0,), stages=("sft",))
    for name in ("prism-one", "prism-two"):
        add_stage(path, 0, name, status="running")
    run = read_run(path)
    assert stage_colour(run, "sft") == "c-sft"
    assert stage_colour(run, "prism-one") != stage_colour(run, "prism-two")
