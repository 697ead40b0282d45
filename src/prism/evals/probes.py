"""What a discriminator's scores respond to: broken reasoning, altered facts, other images, length.

A probe breaks one thing and leaves the rest as it was: the score of the broken response, or of the same
response beside a broken image, should fall. Perturbations return None where there is nothing to break, and
what they return always differs from the original. Draws come from the `random.Random` that is passed in.
"""

import io
import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from PIL import Image, ImageStat

from prism.data.images import image_hash, image_size, open_image
from prism.evals.statistics import NOTHING_MEASURED, Interval, mean_interval, share_interval
from prism.records import ImageSource, Prompt, Response
from prism.rewards import parse_response

_STEP_NUMBER = re.compile(r"[^\S\n]*(?:step\s+)?\(?\d+[.):](?=\s)[^\S\n]*", re.IGNORECASE)
_SENTENCE = re.compile(r"(?:\(?\d+[.):]\s+)?\S.*?(?:[.!?]+(?=\s|\Z)|[。！？]+|\Z)", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)*")


def shuffle_steps(think: str, random_source: random.Random) -> str | None:
    """The same steps in another order.

    Steps are the lines, or the sentences of a single line. Numbers at their beginning stay where they are, so
    that the order can be told from what the steps say alone. None with fewer than two different steps.
    """
    spans = _content_spans(think)
    steps = [think[start:end] for start, end in spans]
    if len(set(steps)) < 2:
        return None
    shuffled = steps
    while shuffled == steps:
        shuffled = random_source.sample(steps, len(steps))
    return _with_spans(think, spans, shuffled)


def swap_lines(text: str, random_source: random.Random) -> str | None:
    """Two different lines, or sentences of a single line, in each other's place."""
    spans = _content_spans(text)
    parts = [text[start:end] for start, end in spans]
    pairs = [(i, j) for j in range(len(parts)) for i in range(j) if parts[i] != parts[j]]
    if not pairs:
        return None
    first, second = random_source.choice(pairs)
    parts[first], parts[second] = parts[second], parts[first]
    return _with_spans(text, spans, parts)


def drop_last_sentence(text: str) -> str | None:
    """Without the last line, or the last sentence of a single line; None if nothing were left."""
    spans = _spans(text)
    return text[: spans[-2][1]] if len(spans) > 1 else None


def change_number(text: str, random_source: random.Random) -> str | None:
    """One number replaced by another of as many digits, in the same notation.

    Numbers of steps and numbers inside a name (`b2`, `H2O`) count nothing and stay. None without any other.
    """
    labels = [(start, content) for (start, _), (content, _) in zip(_spans(text), _content_spans(text), strict=True)]
    found = [
        match
        for match in _NUMBER.finditer(text)
        if not any(start <= match.start() < content for start, content in labels)
    ]
    if not found:
        return None
    match = random_source.choice(found)
    return text[: match.start()] + _other_number(match.group(), random_source) + text[match.end() :]


def _other_number(number: str, random_source: random.Random) -> str:
    """Changes one digit; a leading digit that was not 0 does not become 0, unless it is the only one."""
    places = [place for place, character in enumerate(number) if character.isdigit()]
    place = random_source.choice(places)
    is_leading = place == 0 and len(places) > 1 and number[0] != "0"
    choices = [digit for digit in "0123456789" if digit != number[place] and not (is_leading and digit == "0")]
    return number[:place] + random_source.choice(choices) + number[place + 1 :]


def _spans(text: str) -> list[tuple[int, int]]:
    """Where the visible lines stand, or the sentences if there is one line only."""
    lines = [match.span() for match in re.finditer(r"\S[^\n]*", text)]
    if len(lines) != 1:
        return lines
    return [match.span() for match in _SENTENCE.finditer(text, *lines[0])]


def _content_spans(text: str) -> list[tuple[int, int]]:
    """`_spans` without the numbers of steps."""
    return [(label.end() if (label := _STEP_NUMBER.match(text, *span)) else span[0], span[1]) for span in _spans(text)]


def _with_spans(text: str, spans: Sequence[tuple[int, int]], contents: Sequence[str]) -> str:
    pieces, cursor = [], 0
    for (start, end), content in zip(spans, contents, strict=True):
        pieces += [text[cursor:start], content]
        cursor = end
    return "".join([*pieces, text[cursor:]])


def perturb_response(
    response: Response, part: Literal["caption", "think"], perturbation: Callable[[str], str | None]
) -> Response | None:
    """`response` with one part perturbed and everything else as it was; None for an invalid response, or where
    the perturbation does not apply."""
    span = response.caption_span if part == "caption" else response.think_span
    if not response.is_valid or span is None:
        return None
    start, end = span
    changed = perturbation(response.text[start:end])
    if changed is None:
        return None
    parsed = parse_response(response.text[:start] + changed + response.text[end:])
    return parsed if parsed.is_valid else None


def blank_image(source: ImageSource) -> ImageSource:
    """An image of the same size, all of it in the mean colour: as many image tokens, nothing to see."""
    image = open_image(source)
    red, green, blue = (round(value) for value in ImageStat.Stat(image).mean)
    encoded = io.BytesIO()
    Image.new("RGB", image.size, (red, green, blue)).save(encoded, "PNG")
    return ImageSource(data=encoded.getvalue())


def blank_images(prompt: Prompt) -> Prompt | None:
    """`prompt` with all its images blank; None if it has none or they are blank already."""
    images = tuple(map(blank_image, prompt.images))
    is_changed = any(image_hash(new) != image_hash(old) for new, old in zip(images, prompt.images, strict=True))
    return replace(prompt, images=images) if is_changed else None


def swap_images(prompts: Sequence[Prompt]) -> list[Prompt | None]:
    """Each prompt with the images of another: the next one, in the given order and round the end, that has
    other images of the same sizes, so that as many image tokens are read. None where there is no such one."""
    sizes = [tuple(map(image_size, prompt.images)) for prompt in prompts]
    hashes = [tuple(map(image_hash, prompt.images)) for prompt in prompts]
    swapped: list[Prompt | None] = []
    for index, prompt in enumerate(prompts):
        others = ((index + shift) % len(prompts) for shift in range(1, len(prompts)))
        fitting = (other for other in others if sizes[other] == sizes[index] and hashes[other] != hashes[index])
        partner = next(fitting, None)
        swapped.append(None if partner is None else replace(prompt, images=prompts[partner].images))
    return swapped


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """`fallen`: the share of pairs whose score fell, a tie counting half, so that ½ means no response;
    `fall`: the mean of original − perturbed. `shift`: the mean size of a change, up or down, in standard
    deviations of the original scores; None where these do not differ. `num_tied` pairs scored exactly the same."""

    fallen: Interval
    fall: Interval
    shift: float | None
    num_pairs: int
    num_tied: int

    @property
    def is_noticed(self) -> bool:
        """Whether the scores fall more often than they rise, beyond chance."""
        return self.fallen.low is not None and self.fallen.low > 0.5

    def to_dict(self) -> dict[str, object]:
        return {
            "fallen": self.fallen.to_dict(),
            "fall": self.fall.to_dict(),
            "shift": self.shift,
            "num_pairs": self.num_pairs,
            "num_tied": self.num_tied,
            "is_noticed": self.is_noticed,
        }


def probe_result(
    original_scores: Sequence[float], perturbed_scores: Sequence[float], prompts: Sequence[str] | None = None
) -> ProbeResult:
    """Paired row by row; leave out rows to which the perturbation did not apply. With `prompts`, the prompt of
    each row, limits are over prompts."""
    falls = {
        str(row): float(original) - float(perturbed)
        for row, (original, perturbed) in enumerate(zip(original_scores, perturbed_scores, strict=True))
    }
    if not all(map(math.isfinite, falls.values())):
        raise ValueError("a score is not finite")
    clusters = None if prompts is None else dict(zip(falls, prompts, strict=True))
    spread = float(np.std(original_scores)) if falls else 0.0
    return ProbeResult(
        fallen=share_interval({row: [(1 + np.sign(fall)) / 2] for row, fall in falls.items()}, clusters),
        fall=mean_interval({row: [fall] for row, fall in falls.items()}, clusters),
        shift=float(np.mean(np.abs(list(falls.values())))) / spread if spread else None,
        num_pairs=len(falls),
        num_tied=sum(fall == 0 for fall in falls.values()),
    )


def rank_correlation(
    scores: Sequence[float], values: Sequence[float], groups: Sequence[str] | None = None, level: float = 0.95
) -> Interval:
    """Spearman's rank correlation of scores and, say, lengths, ties sharing their mean rank.

    With `groups`, the prompt of each row, both are first taken as differences from the group's mean: the
    advantage of a rollout depends on these alone, and prompts that ask for long answers do not count. Limits
    by Fisher's z, with the standard error √((1 + ρ²/2)/(n − 3)) of Bonett and Wright (2000), one more taken
    from n for every group beyond the first. Nothing is measured where one of the two does not vary.
    """
    if not len(scores) == len(values) == len(groups or scores):
        raise ValueError(f"{len(scores)} scores, {len(values)} values, {len(groups or scores)} groups")
    if not len(scores):
        return NOTHING_MEASURED
    index = np.unique(np.array(groups or [""] * len(scores), dtype=str), return_inverse=True)[1]
    ranks = [_mean_ranks(_centred(np.asarray(side, dtype=np.float64), index)) for side in (scores, values)]
    first, second = (side - side.mean() for side in ranks)
    spread = math.sqrt(float(first @ first) * float(second @ second))
    if spread == 0:
        return NOTHING_MEASURED
    correlation = max(-1.0, min(1.0, float(first @ second) / spread))
    freedom = len(scores) - 2 - len(set(index.tolist()))
    if freedom <= 0 or abs(correlation) == 1:
        return Interval(correlation, None, None, len(scores))
    error = math.sqrt((1 + correlation**2 / 2) / freedom)
    half = NormalDist().inv_cdf(0.5 + level / 2) * error
    centre = math.atanh(correlation)
    return Interval(correlation, math.tanh(centre - half), math.tanh(centre + half), len(scores))


def _centred(values: Float[np.ndarray, "row"], index: Int[np.ndarray, "row"]) -> Float[np.ndarray, "row"]:
    centred = values - (np.bincount(index, weights=values) / np.bincount(index))[index]
    # Equal values minus their mean leave round-off, which would rank as if it were a difference.
    return np.round(centred / max(np.abs(values).max(), 1e-300), 12)


def _mean_ranks(values: Float[np.ndarray, "row"]) -> Float[np.ndarray, "row"]:
    index, counts = np.unique(values, return_inverse=True, return_counts=True)[1:]
    return (np.cumsum(counts) - (counts - 1) / 2)[index]
