"""Which of the look-alikes that SFT teaches a model to confuse does it name rightly, and do they come together?

    python benchmarks/lookalikes.py RUN/seed-0/sft RUN/seed-0/align …     # evaluated stages beside the run's data

Of every stage the share of purple, stars and fives that its valid responses name rightly, each response weighing the
same; and, from the first two samples of every question, whether what one does better than the other comes together: the
correlation of their differences in the shares of two attributes, and in right answers and the share of fives, which no
question of RL asks for. 0 says that a reward for the one picks no responses by the other.
"""

import argparse
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from statistics import correlation, fmean
from typing import Any

from prism.data.readers import read_prompts
from prism.data.world.oracle import LOOKALIKES, parse_description
from prism.data.world.scene import Scene, decode_scene
from prism.rewards import parse_response
from prism.runtime.jsonl import read_jsonl

NAMES = tuple(LOOKALIKES)
"""What is taken for something else, in the order of an item's words."""


def shares(response: str, scene: Scene) -> list[float | None]:
    """Of each of `NAMES` the share named rightly in a valid response; None where the scene has none."""
    described = {name: words for name, *words in map(str.split, parse_description(parse_response(response).caption))}
    found = []
    for place, true in enumerate(NAMES):
        cells = [name for name, item in scene.named_items() if str(item).split()[place] == true]
        right = [described.get(name, [])[place : place + 1] == [true] for name in cells]
        found.append(fmean(right) if right else None)
    return found


def answers(stage: Path, scenes: dict[str, Scene], mode: str) -> dict[str, list[tuple[float, list[float | None]]]]:
    """By question: 1 or 0 for the answer, and `shares`, of every valid response."""
    found = defaultdict(list)
    for row in read_jsonl(stage / "evaluation" / "items.jsonl"):
        if row["mode"] == mode and row["is_valid"]:
            measured = shares(row["response"], scenes[row["item_id"]])
            found[row["item_id"]].append((float(row["verdict"] == "correct"), measured))
    return found


def together(pairs: list[tuple[Any, Any]], first: int | None, second: int) -> str:
    """The correlation of differences between two samples; `first` None stands for the answer."""
    differences = []
    for (answer, measured), (other_answer, other) in pairs:
        ends = (answer, other_answer) if first is None else (measured[first], other[first])
        if None not in (*ends, measured[second], other[second]):
            differences.append((ends[0] - ends[1], measured[second] - other[second]))
    return f"{correlation(*zip(*differences, strict=True)):+.2f} (n={len(differences)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", type=Path, nargs="+")
    for stage in parser.parse_args().stages:
        prompts = read_prompts(stage.parent / "data" / "test.parquet")
        scenes = {prompt.id: decode_scene(prompt.metadata["scene"]) for prompt in prompts}
        print(stage)
        for mode in ("greedy", "sampled"):
            rows = [row for rows in answers(stage, scenes, mode).values() for row in rows]
            named = [
                fmean(share for _, row in rows if (share := row[place]) is not None) for place in range(len(NAMES))
            ]
            print(f"  {mode}:", *(f"{name} {share:.1%}" for name, share in zip(NAMES, named, strict=True)))
        pairs = [(rows[0], rows[1]) for rows in answers(stage, scenes, "sampled").values() if len(rows) > 1]
        for first, second in combinations(range(len(NAMES)), 2):
            print(f"  together: {NAMES[first]} and {NAMES[second]} {together(pairs, first, second)}")
        print(f"  together: right answers and {NAMES[-1]} {together(pairs, None, len(NAMES) - 1)}")


if __name__ == "__main__":
    main()
