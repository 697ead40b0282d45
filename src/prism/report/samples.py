"""A few responses of late steps beside their images, taken in order and not by how good they look."""

import re
from pathlib import Path
from typing import Any

from prism.config import CELLS, LISTING
from prism.report.charts import plain
from prism.report.identity import VIEWS, stage_colour, stage_title
from prism.report.markup import Html, element
from prism.report.pictures import embedded_image
from prism.report.rundir import Row, Run, Stage, metric_value

_PER_STAGE = 3
_PARTS = {
    "caption": ("Description", "c-perception"),
    "think": ("Reasoning", "c-reasoning"),
    "answer": ("Answer", "c-align"),
}
_BLOCK = re.compile(r"<(caption|think|answer)>(.*?)</\1>", re.DOTALL)


def samples_section(run: Run) -> Html | None:
    groups = []
    for name in run.stage_names:
        stage = next((stage for stage in run.over_seeds(name) if stage.samples), None)
        if stage is not None:
            chosen = late_samples(stage)
            title = f"{stage_title(name)}, step {plain(chosen[0].get('step', 0))}, seed {stage.seed}"
            cards = [_card(run.directory, row) for row in chosen]
            heading = element("h3", title, class_=stage_colour(run, name))
            groups += [heading, element("div", *cards, class_="cards")]
    if not groups:
        return None
    lead = f"The first {_PER_STAGE} prompts of the last step each stage recorded: chosen by order, not by quality."
    return element(
        "section", element("h2", "Sample responses"), element("p", lead, class_="lead"), *groups, id="samples"
    )


def late_samples(stage: Stage) -> list[Row]:
    """The first sample of each of the first few prompts of the last recorded step."""
    last = max(row.get("step", 0) for row in stage.samples)
    by_prompt: dict[Any, Row] = {}
    for row in stage.samples:
        if row.get("step", 0) == last:
            by_prompt.setdefault(row.get("prompt_id"), row)
    return list(by_prompt.values())[:_PER_STAGE]


def _card(directory: Path, row: Row) -> Html:
    prompt = element(
        "div",
        _image(directory, row.get("image")),
        element("p", str(row.get("question", "")).replace("<image>", "").strip()),
        element("p", "Expected: ", element("b", str(row.get("answer", "")))),
        class_="prompt",
    )
    parts = response_parts(str(row.get("response", "")), is_valid=bool(row.get("is_valid")))
    response = element("div", element("ul", *_chips(row), class_="chips"), *parts, class_="response")
    return element("article", prompt, response, class_="card")


def _chips(row: Row) -> list[Html]:
    is_valid = row.get("is_valid")
    chips = []
    if is_valid is not None:
        chips.append(
            element("li", "valid format" if is_valid else "invalid format", class_=None if is_valid else "bad")
        )
    scores = row.get("scores") or {}
    numbers = [("reward", metric_value(row, "reward"))]
    numbers += [(f"{view} score", metric_value(scores, view)) for view in VIEWS]
    return chips + [
        element("li", f"{name} {value:.2f}".replace("-", "−")) for name, value in numbers if value is not None
    ]


def response_parts(text: str, *, is_valid: bool) -> list[Html]:
    """The three parts apart if the format was found valid; otherwise the text as it is."""
    blocks = _BLOCK.findall(text) if is_valid else []
    if not blocks:
        return [_part("Response", "c-base", text)]
    return [_part(*_PARTS[tag], content.strip()) for tag, content in blocks]


def _part(title: str, colour: str, text: str) -> Html:
    return element("div", element("h4", title), element("div", text, tabindex=0), class_=f"part {colour}")


def _root(directory: Path) -> Path:
    """The ablation that the run is a cell of, else the run itself."""
    run = directory.resolve()
    ablation = run.parent.parent
    return ablation if run.parent.name == CELLS and (ablation / LISTING).is_file() else run


def _image(directory: Path, name: Any) -> Html | None:
    """A cell of an ablation shares its images with the others."""
    if name is None:
        return None
    return embedded_image(directory, str(name), root=_root(directory), place="the run directory")
