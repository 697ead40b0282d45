"""How long prompts and responses are: counted in a sample of the data, or as the [plan] table says. Never assumed."""

import dataclasses
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq

from prism.config import CheckpointBase, FilesData, Recipe, TypicalConfig
from prism.data.images import grid_size
from prism.data.readers import prompt_of, read_demonstrations, read_examples, read_prompts
from prism.data.rejects import RejectLog
from prism.data.row_files import open_rows
from prism.errors import ConfigError
from prism.models import PromptEncoder, response_branch
from prism.planning.shapes import PUBLISHED_PIXELS
from prism.records import Demonstration, Example, Prompt, Response
from prism.rewards import parse_response
from prism.stages.datasets import write_world
from prism.stages.workspace import SHIPPED_BASE

SAMPLE = 64
"""Rows of each data set that are counted."""


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens of a prompt without its images, patches of each image, tokens of a response's parts and of all of it, each
    with an end token; 0 where the row has none."""

    text: int
    images: tuple[int, ...] = ()
    caption: int = 0
    reasoning: int = 0
    response: int = 0


@dataclass(frozen=True, slots=True)
class Lengths:
    """Rows of the data sets by name (`sft`, `alignment`, `rl`, `test`) and how many each has where that is known;
    responses as the policy is taken to write them. `source` says where the numbers come from."""

    rows: Mapping[str, Sequence[Row]]
    counts: Mapping[str, int]
    rollouts: Sequence[Row]
    longest_rollout: int | None
    merge: int
    source: str

    def draw(self, name: str, count: int) -> list[Row]:
        """`count` rows that stand for any: evenly spaced in the sample, over and over where it is smaller."""
        rows = self.rows[name]
        if count >= len(rows):
            return [rows[place % len(rows)] for place in range(count)]
        return [rows[place * len(rows) // count] for place in range(count)]

    def draw_rollouts(self, count: int, limit: int, start: int = 0) -> list[Row]:
        """Responses of the policy, none longer than `limit`."""
        return [_limited(self.rollouts[(start + place) % len(self.rollouts)], limit) for place in range(count)]

    def prompt(self, row: Row) -> int:
        """Tokens of the row's prompt with those of its images."""
        return row.text + sum(row.images) // self.merge**2


def _limited(row: Row, limit: int) -> Row:
    if row.response <= limit:
        return row
    share = limit / row.response
    return dataclasses.replace(
        row, response=limit, caption=max(1, round(row.caption * share)), reasoning=max(1, round(row.reasoning * share))
    )


def find_lengths(recipe: Recipe) -> Lengths:
    """Raises ConfigError, naming what is missing, where neither data nor the [plan] table tell, and for lengths beyond
    the recipe's limits."""
    typical = recipe.plan or TypicalConfig()
    encoder = _local_encoder(recipe)
    found, counts = ({}, {}) if encoder is None else _count_data(recipe, encoder)
    needed = _needed(recipe)
    if any(not found.get(name) for name in needed):
        found |= {name: [_typical_row(recipe, typical, encoder)] for name in needed if not found.get(name)}
    found = {name: [_replaced(row, recipe, typical, encoder) for row in rows] for name, rows in found.items()}
    counts |= {
        name: count
        for name, count in (("sft", typical.num_demonstrations), ("test", typical.num_test))
        if count is not None
    }
    lengths = Lengths(
        rows=found,
        counts=counts,
        rollouts=_rollouts(found, typical),
        longest_rollout=typical.longest_rollout,
        merge=2 if encoder is None else encoder.merge_size,
        source=_describe_source(found, counts, typical, is_counted=encoder is not None),
    )
    _check_limits(recipe, lengths)
    return lengths


def _needed(recipe: Recipe) -> list[str]:
    stages = {
        "sft": recipe.sft,
        "alignment": recipe.on_alignment,
        "rl": recipe.rlvr,
        "test": recipe.evaluation,
    }
    return [name for name, stage in stages.items() if stage is not None]


def _local_encoder(recipe: Recipe) -> PromptEncoder | None:
    if not isinstance(recipe.base, CheckpointBase):
        return PromptEncoder.from_pretrained(SHIPPED_BASE, max_pixels=recipe.max_pixels)
    if not recipe.base.path.is_dir():
        return None
    return PromptEncoder.from_pretrained(recipe.base.path, max_pixels=recipe.max_pixels)


def _count_data(recipe: Recipe, encoder: PromptEncoder) -> tuple[dict[str, list[Row]], dict[str, int]]:
    """A sample of each data set that is here, and the rows of those whose number matters."""
    data = recipe.data
    if isinstance(data, FilesData):
        return _count_files(data, encoder)
    wanted = {name: min(getattr(data, name), SAMPLE) for name in ("public", "curated", "alignment", "rl")}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_world(data.model_copy(update={**wanted, "test_per_benchmark": 4}), directory, recipe.seeds[0])
        files = FilesData(
            sft=tuple(sorted((directory / "sft").glob("*.jsonl"))),
            alignment=directory / "alignment.parquet",
            rl=directory / "rl.parquet",
            test=directory / "test.parquet",
        )
        rows, counts = _count_files(files, encoder)
    tests = counts["test"] * data.test_per_benchmark // 4
    return rows, {"sft": data.num_demonstrations, "alignment": data.alignment, "test": tests}


def _count_files(data: FilesData, encoder: PromptEncoder) -> tuple[dict[str, list[Row]], dict[str, int]]:
    rows: dict[str, list[Row]] = {}
    sft = [path for path in data.sft if path.is_file()]
    with RejectLog(os.devnull) as rejects:
        options = {"image_root": data.image_root, "rejects": rejects}
        for path in sft:
            sample = islice(read_examples(path, **options), SAMPLE // len(sft))
            rows["sft"] = [*rows.get("sft", []), *_count_rows(encoder, sample)]
        if data.alignment is not None and data.alignment.is_file():
            demonstrations = read_demonstrations(data.alignment, parse=parse_response, **options)
            rows["alignment"] = _count_rows(encoder, islice(demonstrations, SAMPLE))
        for name in ("rl", "test"):
            path = getattr(data, name)
            if path is not None and path.is_file():
                rows[name] = _count_rows(encoder, islice(read_prompts(path, **options), SAMPLE))
    counts = {"sft": sum(map(_num_rows, sft))} if len(sft) == len(data.sft) and sft else {}
    if data.alignment is not None and data.alignment.is_file():
        counts["alignment"] = _num_rows(data.alignment)
    if data.test is not None and data.test.is_file():
        counts["test"] = _num_rows(data.test)
    return rows, counts


def _num_rows(path: Path) -> int:
    if path.suffix.lower() == ".parquet":
        return pq.ParquetFile(path).metadata.num_rows
    return sum(1 for _ in open_rows(path).rows)


def _count_rows(encoder: PromptEncoder, records: Iterable[Prompt | Example | Demonstration]) -> list[Row]:
    return [_count_row(encoder, record) for record in records]


def _count_row(encoder: PromptEncoder, record: Prompt | Example | Demonstration) -> Row:
    prompt = prompt_of(record)
    patch = encoder.processor.image_processor.patch_size
    images = tuple(width * height // patch**2 for width, height in encoder.image_sizes(prompt))
    row = Row(len(encoder.unexpanded_ids(prompt)) - len(images), images)
    if isinstance(record, Prompt):
        return row
    response = record.response if isinstance(record, Demonstration) else parse_response(record.completion)
    return _with_response(row, encoder, response)


def _with_response(row: Row, encoder: PromptEncoder, response: Response) -> Row:
    length = len(encoder.completion_ids(response.text))
    if not response.is_valid:
        return dataclasses.replace(row, response=length)
    caption, reasoning = (len(response_branch(encoder, response, view)) for view in ("perception", "reasoning"))
    return dataclasses.replace(row, caption=caption, reasoning=reasoning, response=length)


def _typical_row(recipe: Recipe, typical: TypicalConfig, encoder: PromptEncoder | None) -> Row:
    required = ["prompt_tokens", "images_per_prompt", "caption_tokens", "reasoning_tokens"]
    if typical.images_per_prompt != 0:
        required.append("image_size")
    missing = [f"plan.{name}" for name in required if getattr(typical, name) is None]
    if missing:
        where = "the data or the base's processor" if isinstance(recipe.data, FilesData) else "the base's processor"
        raise ConfigError(
            f"recipe {recipe.name}: {where} cannot be read here, so give what prompts and responses are like: "
            f"{', '.join(missing)}"
        )
    return _replaced(Row(0), recipe, typical, encoder)


def _replaced(row: Row, recipe: Recipe, typical: TypicalConfig, encoder: PromptEncoder | None) -> Row:
    """`row` with what the [plan] table says in place of what was counted."""
    changes: dict[str, int | tuple[int, ...]] = {}
    if typical.prompt_tokens is not None:
        changes["text"] = typical.prompt_tokens
    if typical.images_per_prompt is not None or typical.image_size is not None:
        number = len(row.images) if typical.images_per_prompt is None else typical.images_per_prompt
        patches = row.images[:1] if typical.image_size is None else (_patches(typical.image_size, recipe, encoder),)
        changes["images"] = number * patches
    caption, reasoning = typical.caption_tokens, typical.reasoning_tokens
    if caption is not None:
        changes["caption"] = caption
    if reasoning is not None:
        changes["reasoning"] = reasoning
    if caption is not None or reasoning is not None:
        changes["response"] = (caption or row.caption) + (reasoning or row.reasoning)
    return dataclasses.replace(row, **changes) if changes else row


def _patches(size: tuple[int, int], recipe: Recipe, encoder: PromptEncoder | None) -> int:
    """Patches of an image of that size, fitted to the processor's budget of pixels."""
    patch, merge, (smallest, largest) = 16, 2, PUBLISHED_PIXELS
    largest = recipe.max_pixels or largest
    if encoder is not None:
        settings = encoder.processor.image_processor
        patch, merge = settings.patch_size, settings.merge_size
        smallest, largest = settings.size["shortest_edge"], settings.size["longest_edge"]
    width, height = grid_size(*size, factor=patch * merge, min_pixels=smallest, max_pixels=largest)
    return width * height // patch**2


def _rollouts(rows: Mapping[str, Sequence[Row]], typical: TypicalConfig) -> list[Row]:
    """The policy's responses: as long as the teacher's, or as the [plan] table says."""
    written = next((rows[name] for name in ("alignment", "sft", "rl") if name in rows), [])
    written = [row for row in written if row.response > 0 and row.caption > 0]
    if typical.rollout_tokens is None:
        return written
    share = typical.rollout_tokens / (sum(row.response for row in written) / len(written)) if written else 1.0
    return [
        Row(0, (), max(1, round(row.caption * share)), max(1, round(row.reasoning * share)), typical.rollout_tokens)
        for row in written or [Row(0, response=typical.rollout_tokens)]
    ]


def _describe_source(
    rows: Mapping[str, Sequence[Row]], counts: Mapping[str, int], typical: TypicalConfig, *, is_counted: bool
) -> str:
    given = [f"{name} = {value}" for name, value in typical.model_dump(exclude_none=True).items()]
    counted = [name for name, found in rows.items() if len(found) > 1]
    parts = [f"counted in the first {SAMPLE} rows of {', '.join(counted)}"] if is_counted and counted else []
    parts += [f"given: {', '.join(given)}"] if given else []
    return "; ".join(parts)


def _check_limits(recipe: Recipe, lengths: Lengths) -> None:
    """Longer rows would go to the rejects, so the plan would be for a run that cannot be."""
    for name, rows in lengths.rows.items():
        shortest = min(map(lengths.prompt, rows))
        if shortest > recipe.max_prompt_tokens:
            raise ConfigError(
                f"recipe {recipe.name}: prompts of data.{name} have {shortest} tokens with their images, more than "
                f"max_prompt_tokens ({recipe.max_prompt_tokens}), and would all be rejected"
            )
    if not lengths.rollouts and (recipe.warmup or recipe.align or recipe.rlvr or recipe.evaluation):
        raise ConfigError(
            f"recipe {recipe.name}: no data set here has responses to count: give plan.rollout_tokens, the length of "
            "the policy's own"
        )
