"""What a store holds, in numbers and a few examples: `card/statistics.json`, from which the data card is drawn.

The report reads directories and nothing else, so what it shows is written here, pictures included: each is decoded
and encoded again, small, so that no byte of a file that came from outside gets into a page.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from prism.curation.demonstration import demonstration
from prism.curation.funnel import Funnel, count_import, count_step
from prism.curation.rows import Row
from prism.curation.spending import count_spending
from prism.curation.split import SPLITS, STEP
from prism.curation.store import Store
from prism.data.images import FORMATS, open_image
from prism.data.questions import without_choices
from prism.records import ImageSource
from prism.rewards import num_description_items, num_reasoning_steps, parse_response
from prism.runtime.atomic import storage_errors, write_bytes, write_json

FOLDER, FILE = "card", "statistics.json"
NOT_SPLIT = "not split"
EXAMPLES_PER_SPLIT = 4
_LARGEST_SIDE = 384
_MAX_IMAGES = 4
TITLES = {
    "score": "Score, percent",
    "pass_rate": "Pass rate, percent",
    "num_images": "Images per row",
    "longer_side": "Longer side of an image, pixels",
    "question_words": "Words of the question",
    "response_words": "Words of the response",
    "num_items": "Described items",
    "num_steps": "Reasoning steps",
}
"""The distributions; the last two are of responses in the format only."""


def collect(store: Store) -> dict[str, Any]:
    """Counts and writes the statistics of the rows that went through every step; returns the document."""
    counts: dict[str, dict[str, Counter[int]]] = {name: {} for name in TITLES}
    sources: dict[str, Counter[str]] = {}
    examples: dict[str, list[tuple[int, str, Row]]] = {}
    for row in store.rows():
        split = row.findings.get(STEP, {}).get("split", NOT_SPLIT)
        sources.setdefault(row.id.partition("/")[0], Counter())[split] += 1
        for name, value in _measures(row):
            counts[name].setdefault(split, Counter())[value] += 1
        _keep_example(examples.setdefault(split, []), row)
    document = {
        "store": store.directory.resolve().name,
        "funnels": [asdict(funnel) | {"num_in": funnel.num_in} for funnel in funnels(store)],
        "spending": {run.name: asdict(count_spending(store, run.name)) for run in store.chain.current()},
        "sources": {source: dict(splits) for source, splits in sorted(sources.items())},
        "distributions": [
            {"name": name, "title": title, "counts": _ordered(counts[name])} for name, title in TITLES.items()
        ],
        "examples": [
            _example(store, split, row)
            for split in (*SPLITS, NOT_SPLIT)
            for _, _, row in sorted(examples.get(split, []), reverse=True)
        ],
    }
    with storage_errors(store.directory):
        (store.directory / FOLDER).mkdir(exist_ok=True)
    write_json(store.directory / FOLDER / FILE, document)
    return document


def funnels(store: Store) -> list[Funnel]:
    """Of the imports, by source, then of the steps in their order."""
    return [*count_import(store).values(), *(count_step(store, run.name) for run in store.chain.current())]


def _ordered(counts: Mapping[str, Counter[int]]) -> dict[str, dict[str, int]]:
    return {
        split: {str(value): counts[split][value] for value in sorted(counts[split])}
        for split in (*SPLITS, NOT_SPLIT)
        if split in counts
    }


def _measures(row: Row) -> Iterator[tuple[str, int]]:
    """Names of `TITLES` with the row's values; what is not known is left out."""
    score, pass_rate = row.findings.get(STEP, {}).get("score"), row.findings.get("difficulty", {}).get("pass_rate")
    for name, share in (("score", score), ("pass_rate", pass_rate)):
        if share is not None:
            yield name, round(100 * share)
    yield "num_images", len(row.prompt.images)
    yield from (("longer_side", max(_size(image))) for image in row.prompt.images)
    yield "question_words", len(row.prompt.question.split())
    shown = demonstration(row)
    if shown is not None:
        yield "response_words", len(shown.text.split())
        response = parse_response(shown.text)
        if response.is_valid:
            yield "num_items", num_description_items(response.caption or "")
            yield "num_steps", num_reasoning_steps(response.think or "")


def _size(image: ImageSource) -> tuple[int, int]:
    """By the header alone. The store's images are files, and could be decoded when they were imported."""
    assert image.path is not None
    with Image.open(image.path, formats=FORMATS) as opened:
        return opened.size


def _keep_example(kept: list[tuple[int, str, Row]], row: Row) -> None:
    """The rows whose ids have the smallest hashes: always the same ones, and not those that look best."""
    entry = (-int(hashlib.sha256(row.id.encode()).hexdigest()[:15], 16), row.id, row)
    if len(kept) < EXAMPLES_PER_SPLIT:
        heapq.heappush(kept, entry)
    elif entry[:2] > kept[0][:2]:
        heapq.heapreplace(kept, entry)


def _example(store: Store, split: str, row: Row) -> dict[str, Any]:
    shown = demonstration(row)
    text = None if shown is None else shown.text
    facts = {
        "score": row.findings.get(STEP, {}).get("score"),
        "pass rate": row.findings.get("difficulty", {}).get("pass_rate"),
    }
    return {
        "split": split,
        "id": row.id,
        "question": without_choices(row.prompt.question, row.prompt.choices),
        "choices": list(row.prompt.choices),
        "answer": row.prompt.answer,
        "response": text,
        "is_valid": text is not None and parse_response(text).is_valid,
        "facts": {name: value for name, value in facts.items() if value is not None},
        "images": [_thumbnail(store.directory, image) for image in row.prompt.images[:_MAX_IMAGES]],
        "num_images": len(row.prompt.images),
    }


def _thumbnail(directory: Path, source: ImageSource) -> str:
    """Writes the picture as PNG below the store; its path relative to the store."""
    image = open_image(source)
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    stream = BytesIO()
    image.save(stream, "PNG")
    name = f"{FOLDER}/{hashlib.sha256(stream.getvalue()).hexdigest()[:16]}.png"
    path = directory / name
    if not path.is_file():
        with storage_errors(path):
            path.parent.mkdir(exist_ok=True)
        write_bytes(path, stream.getvalue())
    return name


def statistics_lines(document: Mapping[str, Any]) -> list[str]:
    """For a person: the funnel with its reasons, the splits, and the middle of every distribution."""
    lines = [line for entry in document["funnels"] for line in _funnel(entry).lines()]
    totals: Counter[str] = Counter()
    for splits in document["sources"].values():
        totals.update(splits)
    lines += ["", "rows that went through every step:"]
    lines += [f"  {totals[split]:>9,} {split}" for split in (*SPLITS, NOT_SPLIT) if totals[split]] or ["  none"]
    for entry in document["distributions"]:
        for split, counts in entry["counts"].items():
            low, middle, high = (quantile(counts, share) for share in (0.05, 0.5, 0.95))
            lines.append(f"{entry['title']}, {split}: median {middle}, 90% within {low} to {high}")
    return lines


def _funnel(entry: Mapping[str, Any]) -> Funnel:
    return Funnel(**{key: value for key, value in entry.items() if key != "num_in"})


def quantile(counts: Mapping[str, int], share: float) -> int:
    """The smallest value that at least `share` of the values do not exceed."""
    wanted, seen = share * sum(counts.values()), 0
    for value, count in sorted((int(value), count) for value, count in counts.items()):
        seen += count
        if seen >= wanted:
            return value
    raise ValueError("there are no values")
