"""A store of the built-in world, split and exported: a recipe trains on the files at once."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from curated_rows import Scripted
from prism.cli import main
from prism.config import load_recipe
from prism.curation import Outcome, Row, Store, run_step
from prism.curation.importing import import_file
from prism.curation.rows import kept
from prism.data.world.datasets import CURATED, FAITHFUL, demonstrations
from prism.data.writers import write_sharegpt
from prism.stages import datasets
from prism.stages.workspace import Workspace

MICRO = Path(__file__).with_name("micro.toml")
FORMATS = ("sharegpt", "verl", "trl", "imagefolder")


def rate(row: Row) -> Outcome:
    """Of every four problems one is for RL."""
    is_rl = int(row.prompt.id.rpartition("-")[2]) % 4 == 0
    pass_rate, name = (0.5, "rl") if is_rl else (0.0, "hard")
    return kept(row, set=name, pass_rate=pass_rate, num_samples=8, num_unverifiable=0)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("curated")
    examples = demonstrations("world", CURATED, FAITHFUL, 64, seed=5)
    write_sharegpt(root / "world.jsonl", examples, root / "images")
    store = Store.create(root / "store", 4)
    assert import_file(store, root / "world.jsonl") == 64
    run_step(store, Scripted("difficulty", rate))
    assert main(["data", "split", str(store.directory), "alignment=12", "rl=8"]) == 0
    for name in FORMATS:
        assert main(["data", "export", str(store.directory), str(root / name), "--format", name]) == 0
    return root


@pytest.mark.parametrize("name", FORMATS)
def test_a_recipe_trains_on_an_export(exported: Path, tmp_path: Path, name: str) -> None:
    """Two steps of SFT teach no format, so that the stages after it could draw nothing: their data are only read."""
    recipe = tmp_path / "recipe.toml"
    # Everything of the micro recipe but its data.
    text = re.sub(r"\[data\].*?(?=\n\[)", "", MICRO.read_text(), flags=re.DOTALL)
    text = re.sub(r"\[evaluation\].*", "", text, flags=re.DOTALL)
    recipe.write_text(text + (exported / name / "data.toml").read_text())
    table = tomllib.loads(recipe.read_text())
    assert table["data"]["type"] == "files" and set(table["data"]) == {"type", "sft", "alignment", "rl"}
    output = tmp_path / "run"
    assert main(["run", str(recipe), "sft.num_steps=2", "threads=1", f"output={output}", "--stop-after", "sft"]) == 0
    metrics = [json.loads(line) for line in (output / "seed-0" / "sft" / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == 2
    workspace = Workspace(load_recipe(recipe, [f"output={output}"]), 0, output / "seed-0")
    assert len(datasets.read_sft(workspace, 240)) == 44
    assert len(datasets.read_alignment(workspace, 240)) == 12
    assert len(datasets.read_rl(workspace)) == 8
    assert "".join(path.read_text() for path in (output / "seed-0" / "rejects").iterdir()) == ""
