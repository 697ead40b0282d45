"""Which rows are reserved for alignment and RL, the best ones, and which are left for SFT; no image and no problem is
on two sides."""

import hashlib
import json
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from prism.config.selection import SplitConfig
from prism.curation.components import Components
from prism.curation.demonstration import demonstration
from prism.curation.quality import demonstration_signals, quality, use_in_rl
from prism.curation.rows import Outcome, Row
from prism.data.images import image_hash
from prism.data.questions import without_choices
from prism.records import IMAGE_MARK, Prompt
from prism.rewards import parse_response

STEP = "split"
SplitName = Literal["alignment", "rl", "sft"]
SPLITS: tuple[SplitName, ...] = ("alignment", "rl", "sft")

_Feature = Mapping[str, Any]


class Split:
    """Keeps rows with the findings `split`, for reserved ones `score` and `place` (from 1, best first), and for
    demonstrations their `signals`.

    Alignment takes problems that are hard, or that nobody has rated, with a demonstration in the format; RL those in
    difficulty's set for RL. Rows that share an image, or the same question, hang together, and together they go to
    one side: in the order of their mean score, unless they are more than there is room for. Those of them that cannot
    serve there are dropped, and so are rows that can serve nowhere.
    """

    name = STEP

    def __init__(self, config: SplitConfig) -> None:
        self._config = config

    @property
    def settings(self) -> Mapping[str, Any]:
        return self._config.model_dump()

    def describe(self, rows: Iterator[Row]) -> Iterator[tuple[str, _Feature]]:
        for row in rows:
            yield row.id, {"keys": shared_keys(row.prompt), **self._uses(row)}

    def decide(self, features: Iterable[tuple[str, _Feature]]) -> Iterator[Outcome]:
        components = Components()
        scores: dict[SplitName, list[float]] = {"alignment": [], "rl": []}
        for _, feature in features:
            components.add(feature["keys"])
            for name, column in scores.items():
                column.append(feature.get(name, math.nan))
        sides: dict[int, SplitName] = {}
        places: dict[SplitName, dict[int, int]] = {}
        sizes: dict[SplitName, int] = {"alignment": self._config.alignment, "rl": self._config.rl}
        for name, size in sizes.items():
            places[name] = _reserve(components, scores[name], size, sides, name)
        for number, (row_id, feature) in enumerate(features):
            side = sides.get(components.root(number))
            yield _outcome(row_id, feature, side, places[side].get(number) if side else None)

    def _uses(self, row: Row) -> dict[str, Any]:
        """What the row can serve for: its score for alignment and for RL, and whether SFT can have it."""
        shown = demonstration(row)
        difficulty = row.findings.get("difficulty", {})
        uses: dict[str, Any] = {"sft": shown is not None}
        if shown is not None and difficulty.get("set", "hard") == "hard":
            response = parse_response(shown.text)
            if response.is_valid:
                signals = demonstration_signals(shown, response, difficulty, self._config)
                uses |= {"alignment": quality(signals, self._config.weights), "signals": signals}
        if difficulty.get("set") == "rl" and row.prompt.answer.strip():
            uses["rl"] = use_in_rl(difficulty)
        return uses


def shared_keys(prompt: Prompt) -> list[str]:
    """Digests that two rows have in common when they share an image, by its pixels, or are the same problem.

    The same problem is the same text, whatever its case, spaces and order of choices, about the same images: a text
    alone is not enough, since many problems only ask what the figure shows.
    """
    images = [image_hash(image) for image in prompt.images]
    question = without_choices(prompt.question, prompt.choices).replace(IMAGE_MARK, " ")
    texts = [_plain(question), *sorted(map(_plain, prompt.choices))]
    problem = json.dumps([texts, images])
    digests = {*images, hashlib.sha256(problem.encode(errors="surrogatepass")).hexdigest()}
    return sorted(digest[:16] for digest in digests)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _reserve(
    components: Components, scores: list[float], size: int, sides: dict[int, SplitName], name: SplitName
) -> dict[int, int]:
    """Puts the best components that are still free on the side `name`; the places of their rows, by number."""
    members: dict[int, list[int]] = {}
    for number, score in enumerate(scores):
        if not math.isnan(score) and (root := components.root(number)) not in sides:
            members.setdefault(root, []).append(number)

    def mean(root: int) -> float:
        return sum(scores[number] for number in members[root]) / len(members[root])

    chosen: list[int] = []
    for root in sorted(members, key=lambda root: (-mean(root), root)):
        if len(chosen) == size:
            break
        if len(chosen) + len(members[root]) <= size:
            sides[root] = name
            chosen += members[root]
    best_first = sorted(chosen, key=lambda number: (-scores[number], number))
    return {number: place for place, number in enumerate(best_first, start=1)}


def _outcome(row_id: str, feature: _Feature, side: SplitName | None, place: int | None) -> Outcome:
    if side is not None and place is None:
        return Outcome(row_id, "dropped", f"shares an image or a problem with what is reserved for {side}")
    if side is None:
        if not feature["sft"]:
            return Outcome(row_id, "dropped", "has no demonstration and is not chosen for RL")
        return Outcome(row_id, "kept", findings={"split": "sft"})
    signals = {"signals": feature["signals"]} if side == "alignment" else {}
    return Outcome(
        row_id, "kept", findings={"split": side, "score": round(feature[side], 6), "place": place, **signals}
    )
