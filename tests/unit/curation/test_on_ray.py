"""The same steps on a local Ray leave the same outcomes. Deselected by default: run with -m ray, where Ray is."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from curated_rows import Scripted, fill, made
from labelled_copies import rows_to_remove
from pictures import picture
from prism.cli import main
from prism.config import SplitConfig
from prism.curation import Outcome, Row, Store, on_ray, run_step, run_whole_step
from prism.curation.on_ray import decode, encode
from prism.curation.rows import dropped, kept
from prism.curation.split import Split
from prism.errors import ConfigError
from prism.records import ImageSource

GOOD = "<caption>a, b</caption><think>1. c</think><answer>2</answer>"


def rows() -> list[Row]:
    return [
        replace(
            row,
            completion=GOOD if number % 2 else None,
            prompt=replace(row.prompt, images=(picture(1, 1, seed=number % 5),) * (number % 3)),
        )
        for number, row in enumerate(made(120, choices=("1", "2")))
    ]


def judge(row: Row) -> Outcome:
    number = int(row.prompt.id)
    return dropped(row, "ends with 7", str(number)) if number % 10 == 7 else kept(row, set="hard", pass_rate=0.0)


def test_a_row_survives_its_journey() -> None:
    given = made(1)[0]
    prompt = replace(
        given.prompt,
        images=(ImageSource(path=Path("/a/b.png")),),
        choices=("“Ω”",),
        metadata={"n": [1, None]},
        system="S",
    )
    row = replace(given, prompt=prompt, completion="xy", loss_spans=((0, 1),), findings={"teach": {"samples": [{}]}})
    assert decode(encode(row)) == row
    near = replace(row, prompt=replace(prompt, images=(ImageSource(path=Path("a/b.png")),)))
    assert decode(encode(near)).prompt.images[0].path == Path.cwd() / "a/b.png"  # workers lie elsewhere


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local one, with several chunks of several batches even of few rows."""
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(on_ray, "CHUNK_ROWS", 50)
    monkeypatch.setattr(on_ray, "BATCH_ROWS", 8)
    # Pickled steps name modules of these tests.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


def outcomes(store: Store, *steps: str) -> dict[str, dict[str, Outcome]]:
    return {step: {outcome.row_id: outcome for outcome in store.outcomes(step)} for step in steps}


@pytest.mark.ray
@pytest.mark.usefixtures("ray")
def test_on_ray_a_store_ends_as_it_does_here(tmp_path: Path) -> None:
    found = {}
    ways: dict[str, dict[str, Any]] = {"here": {}, "ray": {"execute": on_ray.on_ray}}
    for name, options in ways.items():
        store = Store.create(tmp_path / name, 3)
        fill(store, rows())
        assert run_step(store, Scripted("difficulty", judge), **options) == 120
        assert run_whole_step(store, Split(SplitConfig(alignment=10)), **options) == 108
        # Everything has its outcome: nothing is left to do, there or here.
        assert run_step(store, Scripted("difficulty", judge)) == 0
        found[name] = outcomes(store, "difficulty", "split")
    assert found["ray"] == found["here"]
    assert json.dumps(found["ray"]["split"]["made/1"].findings)


@pytest.mark.ray
@pytest.mark.usefixtures("ray")
def test_a_worker_that_cannot_import_the_step_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("only_here")
    exec("def work(rows): yield from ()", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(ConfigError, match="No module named 'only_here'"):
        next(on_ray.on_ray(module.work, iter(rows())))


@pytest.mark.ray
@pytest.mark.usefixtures("ray")
def test_what_is_removed_is_the_same_on_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies, held-out items and demonstrations that do not hold, by the command, from a folder of its own."""
    given = rows_to_remove(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = {}
    for name, options in (("here", []), ("ray", ["--on-ray"])):
        fill(store := Store.create(Path(name), 3), given)
        assert main(["data", "verify", name, "verify.toml", *options]) == 0
        found[name] = outcomes(store, "verify", "decontaminate", "dedup")
        assert not list(Path(name).glob("sets/*/images"))
    assert found["ray"] == found["here"]
    num_dropped = {
        step: sum(outcome.status == "dropped" for outcome in each.values()) for step, each in found["ray"].items()
    }
    assert min(num_dropped.values()) > 5, num_dropped
