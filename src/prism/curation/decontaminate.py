"""Rows that are in an evaluation set, whole or in part, leave the training data.

A row goes if one of its images is the same picture as one of an evaluation item, whatever is asked about it, or if its
question is that of an item: most runs of words that only few items have, or the same in other words. Where both have
pictures, which are then others, the words must be many: "How many red circles are there?" can be asked of any scene.
"""

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prism.config.curation import EvaluationSet
from prism.curation.candidates import MAX_LIKEST, MIN_LIKENESS
from prism.curation.evaluation_items import read_evaluation_set
from prism.curation.fingerprints import NUM_THUMBNAIL_VALUES, Pictures, Thumbnail, image_name, thumbnail_of
from prism.curation.images import ImageFolder
from prism.curation.rows import Outcome, Row, dropped, kept
from prism.curation.running import Execute, here, run_step
from prism.curation.store import Part, Store
from prism.data.image_likeness import MAX_DIFFERENCE, could_be_copies, directions_of, sketch_of
from prism.data.question_likeness import Words, ask_the_same, minhash_bands, ngrams, question_words
from prism.data.questions import without_choices
from prism.errors import DataError
from prism.records import ImageSource, Prompt
from prism.runtime.atomic import storage_errors
from prism.runtime.lock import DirectoryLock

STEP = "decontaminate"
NGRAM = 8
MIN_SHARED_NGRAMS = 0.5
"""Of an item's runs of 8 words."""

MIN_SHARED_TELLING = 0.9
"""Of an item's numbers, names and the like: a text with other numbers is another problem."""

MAX_ITEMS = 5
"""Runs of words that more items than these have belong to a template and tell nothing."""

MIN_WORDS = 8
MIN_WORDS_BESIDE_PICTURES = 20
"""Words that count in a question which by itself, or in spite of other pictures, is the same problem."""

SAME_PICTURE, SAME_WORDS = "has a picture of an evaluation item", "has the question of an evaluation item"
UNREADABLE = "has an image that cannot be decoded"
_RULES = 2


@dataclass(frozen=True, slots=True)
class _Item:
    id: str
    words: Words
    num_ngrams: int
    has_images: bool


class Decontaminate:
    """Keeps what is in no evaluation set. A dropped row's findings name the `item` and say by how much the pictures
    differ, or which share of the item's runs of words is in the row."""

    name = STEP

    def __init__(self, image_root: Path, sets: Iterable[EvaluationSet], work_directory: Path) -> None:
        """Reads the sets; their images are kept in `work_directory`. Raises DataError."""
        self._folder = ImageFolder(work_directory)
        self._pictures = Pictures(image_root, work_directory)
        self._hashes: list[tuple[str, str]] = []
        self._words, self._images = _WordIndex(), _ImageIndex()
        for config in sets:
            sha256, prompts = read_evaluation_set(config)
            self._hashes.append((config.name, sha256))
            for prompt in prompts:
                self._add(prompt)
        self._words.finish()
        self._images.finish()

    @property
    def settings(self) -> Mapping[str, Any]:
        return {
            "rules": _RULES,
            "against": [list(pair) for pair in self._hashes],
            "pictures": [MAX_DIFFERENCE, MIN_LIKENESS, MAX_LIKEST],
            "words": [NGRAM, MIN_SHARED_NGRAMS, MIN_SHARED_TELLING, MAX_ITEMS, MIN_WORDS, MIN_WORDS_BESIDE_PICTURES],
        }

    def run(self, rows: Iterator[Row]) -> Iterator[Outcome]:
        return map(self._look_at, rows)

    def _add(self, prompt: Prompt) -> None:
        self._words.add(prompt)
        for image in prompt.images:
            stored = self._folder.source(self._folder.store(image))
            self._images.add(prompt.id, image_name(stored), thumbnail_of(stored)[0])

    def _look_at(self, row: Row) -> Outcome:
        try:
            for image in row.prompt.images:
                found = self._find_picture(image)
                if found is not None:
                    item, difference = found
                    detail = f"{item}, differing by {difference:.1f} of 255"
                    return dropped(row, SAME_PICTURE, detail, item=item, picture_difference=round(difference, 1))
        except DataError as error:
            return dropped(row, UNREADABLE, str(error))
        in_words = self._words.find(row.prompt)
        if in_words is not None:
            item, share = in_words
            return dropped(row, SAME_WORDS, item, item=item, shared_ngrams=round(share, 2))
        return kept(row)

    def _find_picture(self, image: ImageSource) -> tuple[str, float] | None:
        name = image_name(image)
        for item, other in self._images.near(thumbnail_of(image)[0]):
            difference = self._pictures.largest_difference((name,), (other,))
            if difference is not None:
                return item, difference
        return None


class _ImageIndex:
    """Thumbnails of all items' images; there are few enough to look at all of them."""

    def __init__(self) -> None:
        self._items: dict[str, str] = {}
        self._list: list[Thumbnail] = []

    def add(self, item: str, name: str, thumbnail: Thumbnail) -> None:
        """An image that several items have stands for the first of them."""
        if name not in self._items:
            self._items[name] = item
            self._list.append(thumbnail)

    def finish(self) -> None:
        self._thumbnails = np.array(self._list, np.uint8).reshape(-1, NUM_THUMBNAIL_VALUES)
        self._directions = directions_of(sketch_of(self._thumbnails))
        self._entries = [(item, name) for name, item in self._items.items()]

    def near(self, thumbnail: Thumbnail) -> list[tuple[str, str]]:
        """Item and image name of the `MAX_LIKEST` that are worth a look, the likest first."""
        likeness = self._directions @ directions_of(sketch_of(thumbnail)[None])[0]
        likely = np.flatnonzero(likeness >= MIN_LIKENESS)
        others = np.broadcast_to(thumbnail, (len(likely), NUM_THUMBNAIL_VALUES))
        likely = likely[could_be_copies(others, self._thumbnails[likely])]
        return [self._entries[number] for number in likely[np.argsort(-likeness[likely], kind="stable")][:MAX_LIKEST]]


class _WordIndex:
    def __init__(self) -> None:
        self._items: list[_Item] = []
        self._by_ngram: dict[int, list[int]] = defaultdict(list)
        self._by_band: dict[tuple[int, int], list[int]] = defaultdict(list)

    def add(self, prompt: Prompt) -> None:
        question = without_choices(prompt.question, prompt.choices)
        number, words, runs = len(self._items), question_words(question), set(ngrams(question, NGRAM))
        self._items.append(_Item(prompt.id, words, 0, bool(prompt.images)))
        for run in runs:
            self._by_ngram[run].append(number)
        for band in minhash_bands(words):
            self._by_band[band].append(number)

    def finish(self) -> None:
        """Forgets the runs of words that too many items have, and counts the others of each item."""
        self._by_ngram = {run: numbers for run, numbers in self._by_ngram.items() if len(numbers) <= MAX_ITEMS}
        counts = Counter(number for numbers in self._by_ngram.values() for number in numbers)
        self._items = [
            _Item(item.id, item.words, counts[number], item.has_images) for number, item in enumerate(self._items)
        ]

    def find(self, prompt: Prompt) -> tuple[str, float] | None:
        """An item with the question of `prompt`, and the share of its runs of words that are in it."""
        question = without_choices(prompt.question, prompt.choices)
        words = question_words(question)
        shared = Counter(number for run in set(ngrams(question, NGRAM)) for number in self._by_ngram.get(run, ()))
        for number, count in shared.most_common():
            item = self._items[number]
            share = count / item.num_ngrams
            is_most = share >= MIN_SHARED_NGRAMS and _shared_telling(item.words, words) >= MIN_SHARED_TELLING
            if is_most and self._is_telling(item, prompt, len(item.words)):
                return item.id, share
        for number in sorted({n for band in minhash_bands(words) for n in self._by_band.get(band, ())}):
            item = self._items[number]
            if self._is_telling(item, prompt, len(words)) and ask_the_same(item.words, words):
                return item.id, shared[number] / item.num_ngrams if item.num_ngrams else 0.0
        return None

    def _is_telling(self, item: _Item, prompt: Prompt, num_words: int) -> bool:
        have_pictures = item.has_images and bool(prompt.images)
        return num_words >= (MIN_WORDS_BESIDE_PICTURES if have_pictures else MIN_WORDS)


def _shared_telling(item: Words, words: Words) -> float:
    telling = {word for word in item.tolist() if word & 1}
    return len(telling & set(words.tolist())) / len(telling) if telling else 1.0


def run_decontaminate(store: Store, sets: Iterable[EvaluationSet], part: Part, execute: Execute = here) -> None:
    """Raises DataError for a set that cannot be read, and what `run_step` raises."""
    with _folder_of_sets(store, part) as directory:
        run_step(store, Decontaminate(store.images.root, sets, directory), part, execute)


@contextmanager
def _folder_of_sets(store: Store, part: Part) -> Iterator[Path]:
    """For the sets' images while the step runs: in the store, where other machines find it."""
    directory = store.directory / "sets" / f"{part.index}-{part.count}"
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    lock, images = DirectoryLock(directory), directory / "images"
    shutil.rmtree(images, ignore_errors=True)  # of a run that was killed
    try:
        yield images
    finally:
        shutil.rmtree(images, ignore_errors=True)
        lock.release()
