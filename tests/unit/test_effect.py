"""`benchmarks/effect.py`: archives of single seeds make one ablation, and every arm's rollouts are counted."""

import importlib
import json
import shutil
import tarfile
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

import pytest

from ablation_runs import WITHOUT, two_seeds, write, write_cell, write_listing
from prism.config import load_ablation
from prism.models import load_policy
from prism.report import print_ablation_table
from prism.report.ablation import read_listing
from prism.runtime.jsonl import read_jsonl
from prism.stages.workspace import SHIPPED_BASE

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WEIGHTS = SHIPPED_BASE / "model.safetensors"


@pytest.fixture(autouse=True)
def _scripts_find_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


def effect_script() -> ModuleType:
    return importlib.import_module("effect")


def effect_tables() -> ModuleType:
    return importlib.import_module("effect_tables")


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


def test_a_base_is_kept_in_bfloat16(tmp_path: Path) -> None:
    effect_script().keep(SHIPPED_BASE, tmp_path / "kept")
    kept, shipped = load_policy(tmp_path / "kept").state_dict(), load_policy(SHIPPED_BASE).state_dict()
    assert kept.keys() == shipped.keys()
    for name, weight in shipped.items():
        assert kept[name].equal(weight.bfloat16().float())
    assert 2 * (tmp_path / "kept" / "model.safetensors").stat().st_size < 1.01 * WEIGHTS.stat().st_size
    assert (tmp_path / "kept" / "tokenizer.json").read_bytes() == (SHIPPED_BASE / "tokenizer.json").read_bytes()


def test_no_kept_base_is_replaced(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="exists: remove it"):
        effect_script().keep(SHIPPED_BASE, tmp_path)


def contents(path: Path) -> dict[str, str | bytes | None]:
    with tarfile.open(path) as archive:
        return {
            member.name: stream.read()
            if member.isfile() and (stream := archive.extractfile(member))
            else member.linkname
            for member in archive.getmembers()
        }


def remove_cell(directory: Path, name: str, seed: int = 0) -> None:
    shutil.rmtree(directory / "cells" / name)
    shutil.rmtree(directory / "store" / f"{name}-{seed}")


def test_cells_are_added_to_those_archived_elsewhere(tmp_path: Path) -> None:
    [whole, _] = single_seeds(tmp_path)
    here, there, path = tmp_path / "alone-0", tmp_path / "there", tmp_path / "seed.tar.xz"
    shutil.copytree(here, there, symlinks=True)
    remove_cell(there, "full")
    remove_cell(here, "no-alignment")
    effect_script().pack(there, path)
    assert not any("full" in name for name in contents(path))
    effect_script().pack(here, path)
    assert contents(path) == contents(whole)
    assert not list(tmp_path.glob(".*.part"))


def test_a_stage_that_has_not_come_to_its_end_is_not_archived(tmp_path: Path) -> None:
    [path, _] = single_seeds(tmp_path)
    directory, before = tmp_path / "alone-0", contents(path)
    manifest = directory / "store" / "full-0" / "prism-grpo" / "manifest.json"
    content = json.loads(manifest.read_text())
    write(manifest, content | {"status": "running", "outputs": {}})
    effect_script().pack(directory, path)
    assert contents(path) == before, "the complete one stays"
    path.unlink()
    effect_script().pack(directory, path)
    assert contents(path) == {name: read for name, read in before.items() if "full-0/prism-grpo/" not in name}
    write(manifest, content)
    effect_script().pack(directory, path)
    assert contents(path) == before


def test_no_cell_is_added_to_those_that_started_from_other_weights(tmp_path: Path) -> None:
    [path, _] = single_seeds(tmp_path)
    directory = tmp_path / "alone-0"
    manifest = directory / "store" / "full-0" / "prism-grpo" / "manifest.json"
    content = json.loads(manifest.read_text())
    write(manifest, content | {"outputs": {"model": "3" * 64}})
    before = path.read_bytes()
    with pytest.raises(SystemExit, match=r"prism-grpo came out otherwise .* --cell full --cell no-alignment, after"):
        effect_script().pack(directory, path)
    assert path.read_bytes() == before


def test_no_cell_is_added_to_those_of_another_recipe(tmp_path: Path) -> None:
    script, archived = effect_script(), tmp_path / "archived"
    file = script.RECIPES / "tuned-effect.toml"
    for cell in load_ablation(file, ["seeds=[0]"], output=Path("elsewhere"), chosen=["full"]).cells.values():
        write(archived / "cells" / cell.name / "recipe.json", cell.model_dump(mode="json"))
    script.check_recipes(Path("seed-0"), archived, load_ablation(file, ["seeds=[0]"]))
    with pytest.raises(SystemExit, match="the recipe of its cell full is not the ablation's now"):
        script.check_recipes(Path("seed-0"), archived, load_ablation(file, ["seeds=[0]", "sft.num_steps=99"]))


def test_archived_seeds_make_the_ablation_that_one_command_would_have_run(tmp_path: Path) -> None:
    archives = single_seeds(tmp_path)
    united = tmp_path / "united"
    effect_script().unite(archives, united)
    tables = [print_ablation_table(directory).partition("\n")[2] for directory in (united, tmp_path / "together")]
    assert tables[0] == tables[1]
    assert seeds_of(united) == {(0, 1)}
    assert (united / "cells" / "full" / "seed-1" / "data" / "teacher_distribution.json").is_file()

    effect_script().unite(archives[:1], united)
    assert seeds_of(united) == {(0,)}
    assert not list(united.rglob("seed-1")), "a seed whose archive is gone is no part of the table"


def seeds_of(united: Path) -> set[tuple[int, ...]]:
    return {recipe.seeds for recipe in read_listing(united).recipes.values() if recipe is not None}


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
    lines = effect_tables().budget_lines(effect_tables().read_arms(tmp_path / "united"))
    assert "  full: warm-up and alignment 3,648, with RLVR grpo 6,208, dapo " in lines[2]
    assert any(line.startswith("  same-updates: grpo 2,560, ") for line in lines)


def test_every_figure_of_the_committed_experiment_follows_from_its_rows(tmp_path: Path) -> None:
    """Means over sub-benchmarks, worked out here from graded responses, less one another."""
    effect_script().unite([BENCHMARKS / "results" / "effect" / "seed-0.tar.xz"], tmp_path / "united")
    arms = effect_tables().read_arms(tmp_path / "united")
    assert [arm.name for arm in arms][:2] == ["full", "baseline"]
    accuracy = {
        (cell, name): mean_accuracy(tmp_path / "united" / "cells" / cell / "seed-0" / name)
        for cell, name in (("full", "sft"), ("full", "align"), ("full", "prism-grpo"), ("dense", "prism-grpo"))
    }
    lines = effect_tables().seed_lines(arms) + effect_tables().pair_lines(arms)
    row = next(line for line in lines if line.startswith("  full: align "))
    assert float(row.split()[2].rstrip(",")) == pytest.approx(100 * accuracy["full", "align"], abs=0.05)
    greedy = lines[: next(i for i, line in enumerate(lines) if "before RLVR, sampled" in line)]
    for head, (ours, theirs) in {
        "    full less SFT: all ": (("full", "align"), ("full", "sft")),
        "    full less dense, grpo: all ": (("full", "prism-grpo"), ("dense", "prism-grpo")),
    }.items():
        [shown] = [line.removeprefix(head).split()[0] for line in greedy if line.startswith(head)]
        expected = 100 * (accuracy[ours] - accuracy[theirs])
        assert float(shown.replace("−", "-")) == pytest.approx(expected, abs=0.05), head


def mean_accuracy(stage: Path) -> float:
    """Greedy, the mean over sub-benchmarks."""
    right = defaultdict(list)
    for row in read_jsonl(stage / "evaluation" / "items.jsonl"):
        if row["mode"] == "greedy":
            right[row["benchmark"]].append(row["verdict"] == "correct")
    return fmean(map(fmean, right.values()))


def test_drift_counts_what_sft_moved_and_what_is_left_of_it(tmp_path: Path) -> None:
    effect_script().unite([BENCHMARKS / "results" / "effect" / "seed-0.tar.xz"], tmp_path / "united")
    [full, *_] = effect_tables().read_arms(tmp_path / "united")
    stages = {stage.name: stage.summary["drift"]["sampled"] for stage in full.run.stages.values() if stage.summary}
    sft, aligned = stages["sft"], stages["align"]
    moved = [name for name in sft if sft[name]["plug_in"] > sft[name]["floor"]]
    left = sorted(aligned[name]["mean"] / sft[name]["mean"] for name in moved)
    at_floor = sum(aligned[name]["plug_in"] <= aligned[name]["floor"] for name in moved)
    expected = f"7 of 7 smaller, {at_floor} up to the floor, left {left[3]:.1%}"
    assert effect_tables().drift_summary(full, "align", "sampled") == expected
    assert effect_tables().drift_summary(full, "sft", "sampled") == "0 of 7 smaller, 0 up to the floor, left 100.0%"


def test_seeds_of_different_recipes_are_not_put_together(tmp_path: Path) -> None:
    archives = single_seeds(tmp_path, align={"num_steps": 41})
    with pytest.raises(
        SystemExit, match=r"seed-1.*cell full differs from that of seed-0.*in align: run the seed again"
    ):
        effect_script().unite(archives, tmp_path / "united")
