"""Which of the look-alikes that SFT teaches a model to confuse does it name rightly, and do they come together?

    python benchmarks/lookalikes.py RUN/seed-0/sft RUN/seed-0/align …     # evaluated stages beside the run's data

Of every stage the share of purple, stars and fives that its valid responses name rightly, each response weighing the
same, and of right answers; and, from the first two samples of every question, whether what one does better than the
other comes together: the correlation of their differences in each two of these. RL's questions never ask for numbers:
0 between answers and fives says that a reward for the one picks no responses by the other.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from statistics import correlation, fmean
from typing import Any

from prism.data.readers import read_prompts
from prism.data.world.oracle import LOOKALIKES, parse_description
from prism.data.world.scene import Scene, decode_scene
from prism.rewards import parse_response
from prism.runtime.jsonl import read_jsonl

ANSWERS = "right answers"
MODES = ("greedy", "sampled")


def measured(row: Mapping[str, Any], scene: Scene) -> dict[str, float]:
    """Of one valid response 1 or 0 for the answer, and of everything in the scene that has a look-alike the share named
    rightly."""
    caption = parse_response(row["response"]).caption or ""
    described = {name: words for name, *words in map(str.split, parse_description(caption))}
    found = {ANSWERS: float(row["verdict"] == "correct")}
    # One value of each attribute, in the order of an item's words.
    for place, true in enumerate(LOOKALIKES):
        cells = [name for name, item in scene.named_items() if str(item).split()[place] == true]
        if cells:
            found[true] = fmean(described.get(name, [])[place : place + 1] == [true] for name in cells)
    return found


def by_question(stage: Path, scenes: Mapping[str, Scene], mode: str) -> list[list[dict[str, float]]]:
    """`measured` for the valid responses to each question."""
    found = defaultdict(list)
    for row in read_jsonl(stage / "evaluation" / "items.jsonl"):
        if row["mode"] == mode and row["is_valid"]:
            found[row["item_id"]].append(measured(row, scenes[row["item_id"]]))
    return list(found.values())


def together(questions: list[list[dict[str, float]]], names: tuple[str, str]) -> str:
    """The correlation of differences between two samples of a question, over those that have both of `names`."""
    pairs = [(samples[0], samples[1]) for samples in questions if len(samples) > 1 and samples[0].keys() >= {*names}]
    first, second = ([one[name] - other[name] for one, other in pairs] for name in names)
    if len({*first}) < 2 or len({*second}) < 2:
        return f"one of them never differs (n={len(pairs)})"
    return f"{correlation(first, second):+.2f} (n={len(pairs)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", type=Path, nargs="+")
    for stage in parser.parse_args().stages:
        prompts = read_prompts(stage.parent / "data" / "test.parquet")
        scenes = {prompt.id: decode_scene(prompt.metadata["scene"]) for prompt in prompts}
        questions = {mode: by_question(stage, scenes, mode) for mode in MODES}
        print(stage)
        for name in (*LOOKALIKES, ANSWERS):
            responses = {mode: [each for samples in questions[mode] for each in samples] for mode in MODES}
            shares = (fmean(each[name] for each in responses[mode] if name in each) for mode in MODES)
            print(f"  {name}:", ", ".join(f"{mode} {share:.1%}" for mode, share in zip(MODES, shares, strict=True)))
        for names in combinations((*LOOKALIKES, ANSWERS), 2):
            print(f"  together: {' and '.join(names)} {together(questions['sampled'], names)}")


if __name__ == "__main__":
    main()
