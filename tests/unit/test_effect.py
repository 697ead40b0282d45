"""`benchmarks/effect.py`: archives of single seeds make one ablation, and every arm's rollouts are counted."""

import importlib.util
import json
import shutil
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ablation_runs import WITHOUT, two_seeds, write, write_cell, write_listing
from prism.report import print_ablation_table
from prism.report.ablation import read_listing


def effect_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("effect", Path(__file__).parents[2] / "benchmarks" / "effect.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def single_seeds(tmp_path: Path, **settings: Any) -> list[Path]:
    """The archives of `two_seeds`, run seed by seed; the second with `settings` of its own."""
    together, archives = two_seeds(tmp_path / "together"), []
    for seed in (0, 1):
        directory = tmp_path / f"alone-{seed}"
        write_listing(directory, ("full", "no-alignment"))
        for name, changes in (("full", settings if seed else {}), ("no-alignment", WITHOUT)):
            cell = write_cell(directory, name, seeds=(seed,), output=str(directory / "cells" / name), **changes)
            source = together / "cells" / name / f"seed-{seed}"
            write(source / "data" / "teacher_distribution.json", {"num_steps": {"3": 9}, "num_items": {"9": 9}})
            # As `prism ablate` has it: a cell's stage is a link to the one that cells share.
            shutil.copytree(source, directory / "store" / f"{name}-{seed}")
            (cell / f"seed-{seed}").symlink_to(Path("..") / ".." / "store" / f"{name}-{seed}")
        effect_script().pack(directory, tmp_path / f"seed-{seed}.tar.xz")
        archives.append(tmp_path / f"seed-{seed}.tar.xz")
    return archives


def test_archived_seeds_make_the_ablation_that_one_command_would_have_run(tmp_path: Path) -> None:
    archives = single_seeds(tmp_path)
    united = tmp_path / "united"
    effect_script().unite(archives, united)
    tables = [print_ablation_table(directory).partition("\n")[2] for directory in (united, tmp_path / "together")]
    assert tables[0] == tables[1]
    assert read_listing(united).seeds == (0, 1)
    assert (united / "cells" / "full" / "seed-1" / "data" / "teacher_distribution.json").is_file()

    effect_script().unite(archives[:1], united)
    assert read_listing(united).seeds == (0,)
    assert not list(united.rglob("seed-1")), "a seed whose archive is gone is no part of the table"


def test_a_cell_may_have_been_run_for_some_seeds_only(tmp_path: Path) -> None:
    first, second = single_seeds(tmp_path)
    with tarfile.open(second) as whole, tarfile.open(tmp_path / "part.tar.xz", "w:xz") as part:
        for member in whole.getmembers():
            if member.name != "ablation.json" and "no-alignment" not in member.name:
                part.addfile(member, whole.extractfile(member) if member.isfile() else None)
        write_listing(tmp_path / "part", ("full",))
        part.add(tmp_path / "part" / "ablation.json", "ablation.json")
    effect_script().unite([first, tmp_path / "part.tar.xz"], tmp_path / "united")
    assert tuple(read_listing(tmp_path / "united").recipes) == ("full", "no-alignment"), "whichever archive comes last"
    recipes = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("united/cells/*/recipe.json")}
    assert {name: recipe["seeds"] for name, recipe in recipes.items()} == {"full": [0, 1], "no-alignment": [0]}


def test_the_committed_experiment_counts_its_rollouts(tmp_path: Path) -> None:
    """(16 + 1) · 32 prompts of the warm-up with 2 rollouts each; then 64 a step."""
    script = effect_script()
    script.unite([script.RESULTS / "effect" / "seed-0.tar.xz"], tmp_path / "united")
    lines = script.budget_lines(tmp_path / "united")
    assert "  full: warm-up and alignment 3,648, with RLVR grpo 6,208, dapo " in lines[2]
    assert any(line.startswith("  same-updates: grpo 2,560, ") for line in lines)


def test_seeds_of_different_recipes_are_not_put_together(tmp_path: Path) -> None:
    archives = single_seeds(tmp_path, align={"num_steps": 41})
    with pytest.raises(
        SystemExit, match=r"seed-1.*cell full differs from that of seed-0.*in align: run the seed again"
    ):
        effect_script().unite(archives, tmp_path / "united")
