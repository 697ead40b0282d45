"""`prism ablate`: cells share what they have in common, and a cell alone gives what a plain run gives."""

import json
from pathlib import Path

import pytest

from prism.cli import main

from .conftest import stages_of

MICRO = Path(__file__).with_name("micro.toml")
SMALL = ("evaluation.limit=1", "warmup.num_steps=1", "align.num_steps=1", "rlvr.num_steps=1")
ONE = 'rlvr.algorithms=[{ type = "grpo" }]'


def manifests(directory: Path) -> dict[str, float]:
    files = directory.glob("store/seed-0/*/manifest.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in files}


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ablation")
    cells = ("--cell", "full", "--cell", "whole-response", "--cell", "no-alignment")
    assert main(["ablate", str(MICRO), *SMALL, ONE, *cells, "--output", str(directory)]) == 0
    return directory


def test_cells_share_their_common_stages(ablation: Path) -> None:
    stages = [name.rpartition("-")[0] for name in manifests(ablation)]
    assert sorted(stages) == sorted(
        ["data", "base", "sft", "warmup", "warmup", "align", "align", "prism-grpo", "prism-grpo", "sft-grpo"]
    )
    sft = {
        (ablation / "cells" / cell / "seed-0" / "sft").resolve() for cell in ("full", "whole-response", "no-alignment")
    }
    assert len(sft) == 1


def test_a_second_run_does_nothing_again(ablation: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = manifests(ablation)
    arguments = ["ablate", str(MICRO), *SMALL, ONE, "--cell", "full", "--output", str(ablation)]
    assert main(arguments) == 0
    assert manifests(ablation) == before
    printed = capsys.readouterr().out
    assert "whole-response" in printed and "dense" in printed  # cells that were not run are named as such
    assert (ablation / "report.html").is_file()


def test_a_cell_is_what_the_recipe_alone_gives(run_directory: Path, ablation: Path, tmp_path: Path) -> None:
    """The recipe by itself as far as both have the same settings, and then by those of the cell."""
    stages_of(run_directory, tmp_path / "run", "data", "base", "sft")
    manifest = tmp_path / "run" / "seed-0" / "sft" / "manifest.json"
    fine_tuned = manifest.stat().st_mtime_ns
    arguments = ["run", str(MICRO), *SMALL, ONE, "rlvr.baselines=[]", f"output={tmp_path / 'run'}"]
    assert main(arguments) == 0
    assert manifest.stat().st_mtime_ns == fine_tuned  # nothing was trained again
    compared = [f"{stage}/metrics.jsonl" for stage in ("sft", "warmup", "align", "prism-grpo")]
    for name in (*compared, "prism-grpo/evaluation/items.jsonl"):
        cell = ablation / "cells" / "full" / "seed-0" / name
        assert (tmp_path / "run" / "seed-0" / name).read_bytes() == cell.read_bytes()


def test_a_discriminator_of_whole_responses_has_one_score(ablation: Path) -> None:
    rows = (ablation / "cells/whole-response/seed-0/align/metrics.jsonl").read_text().splitlines()
    row = json.loads(rows[-1])
    assert row["accuracy/response"] is not None and "accuracy/perception" not in row


def test_an_unknown_cell_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["ablate", str(MICRO), "--cell", "fulll", "--output", str(tmp_path)]) == 2
    assert "there is no cell 'fulll'" in capsys.readouterr().err


def test_a_cell_that_fails_does_not_end_the_others(
    ablation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The built-in base writes in no format: without SFT nothing that it samples can be paired with a teacher."""
    file = tmp_path / "cells.toml"
    settings = json.dumps([*SMALL, ONE, "rlvr.baselines=[]"])
    file.write_text(
        f'name = "failing"\nrecipe = "{MICRO}"\nreference = "later"\nsettings = {settings}\n'
        '[cells]\nwithout = ["sft=none"]\nlater = []\n'
    )
    arguments = ["ablate", str(file), "--output", str(ablation)]
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert "prism: without, seed 0: warmup: 0 of the prompts drew a valid rollout" in printed.err
    assert "prism: later" not in printed.err
    assert "without: Seed 0 ended with an error: warmup: 0 of the prompts" in printed.out
    assert (ablation / "cells/later/seed-0/align/model").is_dir()
    # Mended, it is a cell like any other; here all that it needs is there already.
    file.write_text(file.read_text().replace('without = ["sft=none"]', "without = []"))
    assert main([*arguments, "--cell", "without"]) == 0
    assert "ended with an error" not in capsys.readouterr().out
