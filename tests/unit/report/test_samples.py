"""Samples: text stays text, images come from the run directory alone."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from prism.report.rundir import Row, Stage, read_run
from prism.report.samples import late_samples, samples_section

MakeRun = Callable[..., Path]


def stage_with(*samples: Row) -> Stage:
    return Stage(0, "align", None, (), (), samples, None, None)


def test_the_first_prompts_of_the_last_step() -> None:
    rows = [{"step": step, "prompt_id": prompt, "n": n} for step in (20, 40) for prompt in "abcd" for n in (0, 1)]
    chosen = late_samples(stage_with(*rows))
    assert [(row["step"], row["prompt_id"], row["n"]) for row in chosen] == [(40, "a", 0), (40, "b", 0), (40, "c", 0)]


def rewrite_samples(run: Path, **changes: object) -> str:
    path = run / "seed-0" / "align" / "samples.jsonl"
    rows = [json.loads(line) | changes for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(samples_section(read_run(run)))


def test_a_valid_response_is_shown_in_its_parts(make_run: MakeRun) -> None:
    response = "<caption>a red circle</caption><think>1. one < two</think><answer>2</answer>"
    section = rewrite_samples(make_run(seeds=(0,), stages=("align",)), response=response, is_valid=True)
    for title, text in (("Description", "a red circle"), ("Reasoning", "1. one &lt; two"), ("Answer", "2")):
        assert f'<h4>{title}</h4><div tabindex="0">{text}</div>' in section
    assert "reward −1.25" in section
    assert "perception score 0.42" in section


def test_an_invalid_response_is_shown_as_it_is(make_run: MakeRun) -> None:
    response = "<caption>a</caption><think>b</think><answer>1</answer><answer>2</answer>"
    section = rewrite_samples(make_run(seeds=(0,), stages=("align",)), response=response, is_valid=False)
    assert "&lt;answer&gt;1&lt;/answer&gt;&lt;answer&gt;2&lt;/answer&gt;" in section
    assert "Description" not in section


def test_images_are_embedded(full_run: Path) -> None:
    section = str(samples_section(read_run(full_run)))
    data = base64.b64encode((full_run / "seed-0" / "images" / "1.png").read_bytes()).decode()
    assert f"data:image/png;base64,{data}" in section


@pytest.mark.parametrize("name", ["../outside.png", "/etc/hostname"])
def test_nothing_outside_the_run_directory_is_read(make_run: MakeRun, name: str) -> None:
    run = make_run(seeds=(0,), stages=("align",))
    (run.parent / "outside.png").write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    section = rewrite_samples(run, image=name)
    assert "outside the run directory" in section
    assert "data:" not in section


def test_a_link_that_leads_outside_is_not_followed(make_run: MakeRun) -> None:
    run = make_run(seeds=(0,), stages=("align",))
    (run.parent / "outside.png").write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    (run / "link.png").symlink_to(run.parent / "outside.png")
    assert "data:" not in rewrite_samples(run, image="link.png")


def test_images_that_cannot_be_shown_are_named(make_run: MakeRun) -> None:
    run = make_run(seeds=(0,), stages=("align",))
    (run / "page.png").write_bytes(b"<svg onload=alert(1)>")
    assert "page.png is neither PNG nor JPEG" in rewrite_samples(run, image="page.png")
    assert "gone.png is missing" in rewrite_samples(run, image="gone.png")
    assert "<img" not in rewrite_samples(run, image=None)


def test_a_run_without_samples_has_no_section(make_run: MakeRun) -> None:
    assert samples_section(read_run(make_run(seeds=(0,), stages=("sft",)))) is None
