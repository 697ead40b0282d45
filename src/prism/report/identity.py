"""The title and the colour by which a stage is known in every table and chart, and what seeds are called."""

from collections.abc import Sequence

from prism.config import SECOND_SFT
from prism.report.rundir import Run

_STAGES = ("base", "sft", "align", "sft-grpo", "sft-dapo", "sft-gspo", "prism-grpo", "prism-dapo", "prism-gspo")
_OTHERS = ("other", "other-2", "other-3", "other-4")

VIEWS = {"perception": "c-perception", "reasoning": "c-reasoning", "response": "c-response"}
"""What a discriminator scores, and its colour: two views of a response, or the response as a whole."""

COLOURS = (*_STAGES, *_OTHERS, *VIEWS)
"""Each has a class `c-<name>` in the stylesheet."""

OTHER = "c-other"

_POLICIES = {"base": "Base", "sft": "SFT", SECOND_SFT: "Second SFT"}
_TITLES = {**_POLICIES, "warmup": "Discriminator warm-up", "align": "PRISM"}
_STARTS = {**_POLICIES, "prism": "PRISM"}


def stage_title(name: str) -> str:
    """`prism-grpo` → `PRISM → GRPO`; a directory name that follows no convention stays as it is."""
    for start, title in _STARTS.items():
        if name.startswith(f"{start}-"):
            return f"{title} → {algorithm_title(name.removeprefix(f'{start}-'))}"
    return _TITLES.get(name, name)


def algorithm_title(name: str) -> str:
    return name.upper() if len(name) <= 4 else name


def seeds_title(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def stage_colour(run: Run, name: str) -> str:
    """A fixed class for the usual stages; variants with names of their own take the spare colours in turn."""
    if name in _STAGES:
        return f"c-{name}"
    unusual = [other for other in run.stage_names if other not in _STAGES]
    return f"c-{_OTHERS[unusual.index(name) % len(_OTHERS)]}" if name in unusual else OTHER
