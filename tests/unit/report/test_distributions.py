"""Distributions beside the teacher's."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from prism.report.distributions import distributions_section, teacher_counts
from prism.report.rundir import read_run


def test_teacher_counts_are_summed_over_seeds(full_run: Path) -> None:
    source, counts = teacher_counts(read_run(full_run))
    assert (source, counts["num_items"]) == ("alignment", {8: 120, 9: 680})


def write_teacher(run: Path, seed: int, stage: str, steps: dict[str, int]) -> None:
    """What an evaluation writes of a teacher that answered the test questions."""
    path = run / f"seed-{seed}" / stage / "evaluation" / "summary.json"
    summary = json.loads(path.read_text())
    summary["distribution"]["teacher"] = {"num_steps": steps, "num_items": {"9": 20}}
    path.write_text(json.dumps(summary | {"drift": {"reference": "test", "greedy": {}, "sampled": {}}}))


def test_the_teachers_answers_to_the_same_questions_come_first(make_run: Callable[..., Path]) -> None:
    path = make_run(seeds=(0, 1), stages=("sft", "align"))
    for stage in ("sft", "align"):
        write_teacher(path, 0, stage, {"5": 20})
    assert teacher_counts(read_run(path))[0] == "alignment", "one of two seeds has none"
    assert "to other questions than the test" in str(distributions_section(read_run(path)))
    write_teacher(path, 1, "sft", {"4": 10, "5": 10})
    source, counts = teacher_counts(read_run(path))
    assert (source, counts) == ("test", {"num_steps": {4: 10, 5: 30}, "num_items": {9: 40}})
    section = str(distributions_section(read_run(path))).replace("&#x27;", "'")
    assert "The teacher's responses are those to the same questions." in section
    assert "to other questions" not in section


def test_what_chance_gives_stands_beside_a_distance(make_run: Callable[..., Path]) -> None:
    path = make_run(seeds=(0,), stages=("sft",), per_benchmark=20)
    items = path / "seed-0" / "sft" / "evaluation" / "items.jsonl"
    rows = [json.loads(line) for line in items.read_text().splitlines()]
    one = next(row for row in rows if row["mode"] == "greedy") | {"num_steps": 5}
    items.write_text(json.dumps(one) + "\n")
    write_teacher(path, 0, "sft", {"4": 10, "5": 10})
    section = str(distributions_section(read_run(path)))
    assert "<small>d = 0.50 (0.50) · mean 5.0 · n = 1</small>" in section, "one response of two that are as likely"


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
