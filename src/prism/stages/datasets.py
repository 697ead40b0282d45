"""The data of one seed: made by the built-in world or read from the user's files, by the same readers."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prism.config import CopyRollout, FilesData, WorldData
from prism.data.readers import read_demonstrations, read_examples, read_prompts
from prism.data.rejects import RejectLog
from prism.data.world.datasets import (
    CURATED,
    DEV,
    FAITHFUL,
    PUBLIC,
    ROLLOUT,
    demonstrations,
    test_examples,
)
from prism.data.world.oracle import Fidelity
from prism.data.writers import write_sharegpt, write_verl_parquet
from prism.errors import ConfigError, DataError
from prism.evals.summary import Reference
from prism.records import Demonstration, Example, Prompt, Response
from prism.rewards import num_description_items, num_reasoning_steps, parse_response
from prism.runtime.atomic import write_json
from prism.runtime.distributed import from_first
from prism.runtime.hashing import code_version, config_sha256, path_sha256
from prism.runtime.launch import is_first
from prism.runtime.manifest import read_manifest
from prism.runtime.progress import say
from prism.runtime.seeding import derive_seed
from prism.runtime.stage import StageRun
from prism.stages.row_check import RowCheck, check_decoded
from prism.stages.shared_check import Check, ImageMemory, SharedCheck
from prism.stages.workspace import CONSOLE, Workspace

DECODED = "decoded"
"""The directory beside the data stage that remembers what decoding the images told."""

TEACHER, TEACHER_DISTRIBUTION = "teacher.json", "teacher_distribution.json"


def prepare(workspace: Workspace) -> None:
    """Makes or checks the data and records their hashes; every later stage names them as inputs."""
    data = workspace.recipe.data
    # By one process: to hash hundreds of gigabytes takes minutes.
    inputs = {} if isinstance(data, WorldData) else from_first(lambda: _file_hashes(data))
    run = StageRun(
        workspace.stage_directory("data"),
        name="data",
        kind="data",
        config=data.model_dump(mode="json"),
        inputs=inputs,
        num_steps=0,
        checkpoint_every=1,
        seed=workspace.seed,
    )
    if run.is_complete:
        return
    outputs = from_first(lambda: _write_data(workspace, run.directory))
    run.finish(outputs | _write_teacher(workspace))


def _write_data(workspace: Workspace, directory: Path) -> dict[str, str]:
    data = workspace.recipe.data
    return write_world(data, directory, workspace.seed) if isinstance(data, WorldData) else {}


def write_world(data: WorldData, directory: Path, seed: int) -> dict[str, str]:
    """Writes the world's data sets below `directory`; their names and relative paths.

    Public and curated demonstrations as ShareGPT with image files, the rest as parquet with images inside.
    """
    public = Fidelity(**data.public_fidelity.model_dump())
    sft = directory / "sft"
    images = sft / "images"
    for name, source, fidelity, count in (
        ("public", PUBLIC, public, data.public),
        ("curated", CURATED, FAITHFUL, data.curated),
    ):
        if count:
            rows = demonstrations(name, source, fidelity, count, derive_seed(seed, "world"))
            write_sharegpt(sft / f"{name}.jsonl", rows, images)
    world_seed = derive_seed(seed, "world")
    alignment = demonstrations("alignment", ROLLOUT, FAITHFUL, data.alignment, world_seed)
    write_verl_parquet(directory / "alignment.parquet", alignment)
    rl = (example.prompt for example in demonstrations("rl", ROLLOUT, FAITHFUL, data.rl, world_seed))
    write_verl_parquet(directory / "rl.parquet", rl)
    write_verl_parquet(directory / "dev.parquet", demonstrations("dev", DEV, FAITHFUL, data.dev, world_seed))
    write_verl_parquet(
        directory / "test.parquet", test_examples(data.test_per_benchmark, world_seed, split=data.test_split)
    )
    return {"sft": "sft"} | {name: f"{name}.parquet" for name in ("alignment", "rl", "dev", "test")}


def read_sft(workspace: Workspace, max_response_tokens: int) -> list[Example]:
    """Raises DataError, as all readers below do, for a file of which no row can be used. A row longer than
    `max_prompt_tokens` of the recipe or than `max_response_tokens` goes to the rejects."""
    data = workspace.recipe.data
    if isinstance(data, WorldData):
        files = sorted((workspace.stage_directory("data") / "sft").glob("*.jsonl"))
    else:
        files = list(data.sft)
    check = _row_check(workspace, max_response_tokens)
    with _rejects(workspace, "sft") as rejects:
        return [
            example
            for place, file in enumerate(files)
            for example in read_examples(
                file,
                image_root=_image_root(workspace),
                rejects=rejects,
                check_all=_check_all(workspace, "sft", file, check, place),
            )
        ]


def read_development(workspace: Workspace, max_response_tokens: int) -> list[Example]:
    """Demonstrations that no stage trains on; none where the user gave no file."""
    file = _file(workspace, "dev")
    return [] if file is None else _read_examples(workspace, "dev", file, max_response_tokens)


def read_alignment_examples(workspace: Workspace, max_response_tokens: int) -> list[Example]:
    """What alignment has, to be imitated."""
    return _read_examples(workspace, "alignment", _required(workspace, "alignment"), max_response_tokens)


def _read_examples(workspace: Workspace, name: str, file: Path, max_response_tokens: int) -> list[Example]:
    root, check = _image_root(workspace), _row_check(workspace, max_response_tokens)
    with _rejects(workspace, name) as rejects:
        check_all = _check_all(workspace, name, file, check)
        return list(read_examples(file, image_root=root, rejects=rejects, check_all=check_all))


def read_alignment(workspace: Workspace, max_response_tokens: int) -> list[Demonstration]:
    return _read_alignment(workspace, _row_check(workspace, max_response_tokens, is_sampled=True))


def _read_alignment(workspace: Workspace, check: Check) -> list[Demonstration]:
    file = _required(workspace, "alignment")
    with _rejects(workspace, "alignment") as rejects:
        return list(
            read_demonstrations(
                file,
                parse=parse_response,
                image_root=_image_root(workspace),
                rejects=rejects,
                check_all=_check_all(workspace, "alignment", file, check),
            )
        )


def read_rl(workspace: Workspace) -> list[Prompt]:
    return _read_prompts(workspace, "rl")


def read_test(workspace: Workspace) -> list[Prompt]:
    return _read_prompts(workspace, "test")


def _read_prompts(workspace: Workspace, name: str) -> list[Prompt]:
    file = _required(workspace, name)
    with _rejects(workspace, name) as rejects:
        return list(
            read_prompts(
                file,
                image_root=_image_root(workspace),
                rejects=rejects,
                check_all=_check_all(workspace, name, file, _row_check(workspace, is_sampled=True)),
            )
        )


def _row_check(workspace: Workspace, max_response_tokens: int | None = None, *, is_sampled: bool = False) -> RowCheck:
    rollout = workspace.recipe.rollout
    return RowCheck(
        workspace.load_encoder("base"),
        workspace.recipe.max_prompt_tokens,
        max_response_tokens,
        max_images=rollout.max_images if is_sampled and isinstance(rollout, CopyRollout) else None,
    )


def _check_all(workspace: Workspace, name: str, file: Path, check: Check, place: int = 0) -> SharedCheck:
    """`check` for the rows of `file`, which the data set `name` has at `place`.

    What is remembered of its images holds for this content, as the data stage found it, since unchanged, and for this
    version of the code. One process says which that is: on a network's disk another may see it later.
    """

    def memory() -> Path | None:
        sha256 = _content_hash(workspace, name)
        if sha256 is None or not file.exists():
            return None
        status = file.stat()
        state = [sha256, place, status.st_size, status.st_mtime_ns, str(_image_root(workspace)), code_version()]
        return workspace.stage_directory("data").parent / DECODED / f"{name}-{config_sha256(state)[:16]}.jsonl"

    return SharedCheck(check, ImageMemory(from_first(memory)))


def _content_hash(workspace: Workspace, name: str) -> str | None:
    """Of the user's files it is known from the start of the data stage, of the world's from its end."""
    manifest = read_manifest(workspace.stage_directory("data"))
    if manifest is None:
        return None
    output = manifest["outputs"].get(name)
    return manifest["inputs"].get(name) if output is None else output["sha256"]


def _file(workspace: Workspace, name: str) -> Path | None:
    data = workspace.recipe.data
    if isinstance(data, WorldData):
        return workspace.stage_directory("data") / f"{name}.parquet"
    return getattr(data, name)


def _required(workspace: Workspace, name: str) -> Path:
    file = _file(workspace, name)
    if file is None:
        raise ConfigError(f"data.{name}: this stage reads it: name a file")
    return file


def _image_root(workspace: Workspace) -> Path | None:
    data = workspace.recipe.data
    return data.image_root if isinstance(data, FilesData) else None


@contextmanager
def _rejects(workspace: Workspace, name: str) -> Iterator[RejectLog]:
    """The rejects file of one data set; says how many rows were rejected when the reading ends."""
    path = workspace.directory / "rejects" / f"{name}.jsonl"
    with RejectLog(path if is_first() else Path(os.devnull)) as log:
        yield log
    if log.total:
        say(CONSOLE, f"data/{name}: {log.summary()}")


def _file_hashes(data: FilesData) -> dict[str, str]:
    hashes = {"sft": config_sha256([_sha256("sft", path) for path in data.sft])} if data.sft else {}
    for name in ("alignment", "rl", "dev", "test"):
        path = getattr(data, name)
        if path is not None:
            hashes[name] = _sha256(name, path)
    return hashes


def _sha256(name: str, path: Path) -> str:
    if not path.is_file():
        raise DataError(f"data.{name}: {path}: no such file; paths are relative to the working directory")
    return path_sha256(path)


def read_teacher(workspace: Workspace) -> Reference | None:
    """The teacher's responses that the run's policies are compared with; None where the data name none."""
    if workspace.input_hash("data", "teacher") is None:
        return None
    document = json.loads((workspace.stage_directory("data") / TEACHER).read_text(encoding="utf-8"))
    responses = {prompt: [parse_response(text) for text in texts] for prompt, texts in document["responses"].items()}
    return Reference(document["source"], responses)


def _write_teacher(workspace: Workspace) -> dict[str, str]:
    """What later stages know of the teacher, by name and relative path.

    `teacher.json` holds its responses to the test prompts if the test file has one for each, as the world's
    has, else those of the alignment data: another set of prompts, from which even the teacher would drift.
    Beside it are histograms of the alignment data, against which the report draws those of the policies.
    """
    texts, source = from_first(lambda: _test_answers(workspace)), "test"
    if _file(workspace, "alignment") is not None:
        # The base model, and with it the tokenizer that lengths are counted in, comes after the data.
        alignment = _read_alignment(workspace, check_decoded)
        _write_teacher_distribution(workspace, [demonstration.response for demonstration in alignment])
        if not texts:
            # An id names a prompt within one file: a test prompt may bear the name of an alignment prompt.
            texts = [(f"alignment/{given.prompt.id}", given.response.text) for given in alignment]
            source = "alignment"
    if not texts:
        return {}
    responses: dict[str, list[str]] = {}
    for prompt, text in texts:
        responses.setdefault(prompt, []).append(text)
    write_json(workspace.stage_directory("data") / TEACHER, {"source": source, "responses": responses})
    return {"teacher": TEACHER}


def _test_answers(workspace: Workspace) -> list[tuple[str, str]]:
    """Prompt and teacher's response of each test row; none unless every row has a valid response."""
    file = _file(workspace, "test")
    if file is None:
        return []
    try:
        rows = read_demonstrations(file, parse=parse_response, image_root=_image_root(workspace))
        return [(row.prompt.id, row.response.text) for row in rows]
    except DataError:
        # A test file needs no responses; what else may be wrong with it, the evaluation that needs it says.
        return []


def _write_teacher_distribution(workspace: Workspace, responses: list[Response]) -> None:
    histograms = {
        "num_steps": Counter(num_reasoning_steps(response.think or "") for response in responses),
        "num_items": Counter(num_description_items(response.caption or "") for response in responses),
    }
    table = {
        name: {str(value): count for value, count in sorted(histogram.items())}
        for name, histogram in histograms.items()
    }
    write_json(workspace.stage_directory("data") / TEACHER_DISTRIBUTION, table)
