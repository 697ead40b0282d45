"""`benchmarks/effect.py`: archives of single seeds make one ablation, and every arm's rollouts are counted."""

import importlib
import io
import json
import shutil
import tarfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

import pytest

from ablation_runs import WITHOUT, evaluate, two_seeds, write, write_cell, write_lines, write_listing
from prism.config import Recipe, load_ablation
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


def test_why_a_cell_failed_is_archived_until_it_comes_to_its_end(tmp_path: Path) -> None:
    [path, _] = single_seeds(tmp_path)
    directory, before = tmp_path / "alone-0", contents(path)
    failure = directory / "cells" / "dense" / "seed-0" / "failure.json"
    write_cell(directory, "dense", output=str(directory / "cells" / "dense"), discriminator={"type": "dense"})
    write(failure, {"error": "the game collapsed"})
    effect_script().pack(directory, path)
    assert set(contents(path)) - set(before) == {"cells/dense/recipe.json", "cells/dense/seed-0/failure.json"}
    effect_script().unite([path], tmp_path / "united")
    assert "dense: Seed 0 ended with an error: the game collapsed" in told(tmp_path / "united", ("full", "dense"))
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(directory, elsewhere, symlinks=True)
    shutil.rmtree(elsewhere / "cells" / "dense")
    effect_script().pack(elsewhere, path)
    assert "cells/dense/seed-0/failure.json" in contents(path), "where the cell was not run, nothing is known of it"
    failure.unlink()
    effect_script().pack(directory, path)
    assert set(contents(path)) - set(before) == {"cells/dense/recipe.json"}


def told(united: Path, cells: tuple[str, ...]) -> list[str]:
    write_listing(united, cells)
    return print_ablation_table(united).splitlines()


@pytest.mark.parametrize("is_begun", [True, False])
def test_a_seed_is_archived_though_a_cell_of_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_begun: bool
) -> None:
    """But not where the command did not come to its cells: what lies there is of another one, or nothing."""
    script, ran = effect_script(), []

    def ablate(arguments: list[str]) -> int:
        directory = Path(arguments[arguments.index("--output") + 1])
        if is_begun:
            write_listing(directory, ("full", "dense"))
            write(directory / "cells" / "dense" / "seed-4" / "failure.json", {"error": "the game collapsed"})
        ran.append(directory)
        return 2

    monkeypatch.setattr(script, "prism", ablate)
    monkeypatch.setattr(script, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(script, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    with pytest.raises(SystemExit) as status:
        script.run("tuned-effect", 4, [])
    path = tmp_path / "results" / "tuned-effect" / "seed-4.tar.xz"
    assert (status.value.code, len(ran), path.is_file()) == (2, 1, is_begun)
    assert not is_begun or set(contents(path)) == {"ablation.json", "cells/dense/seed-4/failure.json"}


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


def test_of_an_evaluation_that_newer_code_repeats_the_archived_one_stays(tmp_path: Path) -> None:
    [path, _] = single_seeds(tmp_path)
    evaluation = tmp_path / "alone-0" / "store" / "full-0" / "prism-grpo" / "evaluation"
    content = json.loads((evaluation / "manifest.json").read_text())
    write(evaluation / "manifest.json", content | {"outputs": {"items": "4" * 64}})
    write(evaluation / "summary.json", {"measured": "more"})
    before = contents(path)
    effect_script().pack(tmp_path / "alone-0", path)
    assert contents(path) == before
    write(evaluation / "manifest.json", content | {"inputs": {"data/test": "b" * 64}})
    with pytest.raises(SystemExit, match="prism-grpo/evaluation came out otherwise"):
        effect_script().pack(tmp_path / "alone-0", path)


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


def rewritten(path: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """The archive with what `change` makes of each of its files."""
    new = path.with_name(f"rewritten-{path.name}")
    with tarfile.open(path) as old, tarfile.open(new, "w:xz") as archive:
        for member in old.getmembers():
            stream = old.extractfile(member) if member.isfile() else None
            data = b"" if stream is None else change(member.name, stream.read())
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data) if member.isfile() else None)
    return new


def test_seeds_of_versions_that_know_other_settings_are_put_together(tmp_path: Path) -> None:
    """A setting at its default is one that an older version did not know."""

    def with_defaults(name: str, data: bytes) -> bytes:
        recipe = Recipe.model_validate_json(data) if name.endswith("recipe.json") else None
        return data if recipe is None else recipe.model_dump_json().encode()

    first, second = single_seeds(tmp_path)
    for archives in ([rewritten(first, with_defaults), second], [first, rewritten(second, with_defaults)]):
        effect_script().unite(archives, tmp_path / "united")
        assert seeds_of(tmp_path / "united") == {(0, 1)}


def test_seeds_of_different_code_are_told_in_the_report(tmp_path: Path) -> None:
    def by(version: str, data: bytes) -> bytes:
        content = json.loads(data)
        return json.dumps(content | {"code_version": version * 64} if "kind" in content else content).encode()

    archives = [
        rewritten(
            path, lambda name, data, version=version: by(version, data) if name.endswith("manifest.json") else data
        )
        for path, version in zip(single_seeds(tmp_path), "ab", strict=True)
    ]
    effect_script().unite(archives, tmp_path / "united")
    line = "Seeds ran different code (seed 0: aaaaaaa; seed 1: bbbbbbb): a mean over them is one over these versions."
    assert line in print_ablation_table(tmp_path / "united").splitlines()


def test_differences_stand_seed_by_seed_beside_their_mean_and_limits(tmp_path: Path) -> None:
    """As worked out for `two_seeds`: .375 and .25; Student's limits are 12.7062 · .0625 to both sides of .3125."""
    arms = effect_tables().read_arms(two_seeds(tmp_path))
    lines = effect_tables().worth_lines(arms)
    assert lines[2].split() == ["full", "less", "no-alignment,", "greedy", "seed", "0", "seed", "1", "mean"]
    greedy = lines[3 : next(place for place, line in enumerate(lines) if "sampled" in line)]
    rows = {"".join(line.split()[:2]): line for line in greedy}
    assert rows["grpo:all"].endswith("    +37.5    +25.0   +31.2 [−48.2, 110.7]")
    assert rows["grpo:in"].split()[2:5] == ["+25.0", "0.0", "+12.5"] and rows["grpo:out"].split()[2:5] == [
        "+50.0",
        "+50.0",
        "+50.0",
    ]
    assert next(line for line in lines if "mean of grpo, gspo: all" in line).split()[-3:] == ["–", "–", "–"]


def test_answers_with_a_right_description_stand_beside_the_others(tmp_path: Path) -> None:
    """Out of distribution; in seed 0 the first of two responses is right, and so is its description."""
    root = two_seeds(tmp_path)
    path = root / "cells" / "full" / "seed-0" / "prism-grpo" / "evaluation" / "items.jsonl"
    rows = read_jsonl(path)
    write_lines(path, [row | {"is_caption_exact": row["item_id"].endswith("-0")} for row in rows])
    lines = effect_tables().description_lines(effect_tables().read_arms(root))
    [full] = [
        line for line in lines[: lines.index(next(line for line in lines if "sampled" in line))] if "full" in line
    ]
    assert full.split("prism-grpo")[1].split("  ")[-1].strip() == "–; 100% of 2"
    assert "100% of 1; 0% of 1" in full


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


def test_differences_are_taken_to_the_cell_that_is_asked_for(tmp_path: Path) -> None:
    script, archives, united = effect_script(), [BENCHMARKS / "results" / "effect" / "seed-0.tar.xz"], tmp_path / "one"
    gains = {}
    for reference, other in (("full", "dense"), ("dense", "full")):
        script.unite(archives, united, reference)
        arms = effect_tables().read_arms(united)
        assert [arms[0].name, arms[1].name] == [reference, "baseline"]
        lines = effect_tables().worth_lines(arms)
        after = lines[next(i for i, line in enumerate(lines) if f"{reference} less {other}, greedy" in line) :]
        gains[reference] = next(line for line in after if "align less align: all" in line).split()[-3]
    assert gains["dense"].replace("−", "+") == gains["full"].replace("−", "+") and gains["dense"] != gains["full"]
    script.unite(archives, united, "baseline")
    with pytest.raises(SystemExit, match="the reference baseline has not been run, or has no alignment"):
        effect_tables().tables(united)
    with pytest.raises(SystemExit, match=r"--reference dance: no seed is archived with it; there are: .*dense"):
        script.unite(archives, united, "dance")


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


def test_of_an_even_number_of_measures_the_median_is_between_two(tmp_path: Path) -> None:
    """Distances after SFT of 1; after alignment a tenth, a fifth, two fifths and four fifths of them are left."""
    root = two_seeds(tmp_path)
    full = root / "cells" / "full"
    for stage, means in (("sft", (1, 1, 1, 1)), ("align", (0.1, 0.2, 0.4, 0.8))):
        evaluate(full, stage, {"color": [1, 0]})
        distances = {str(place): {"mean": mean, "plug_in": mean, "floor": 0.15} for place, mean in enumerate(means)}
        path = full / "seed-0" / stage / "evaluation" / "summary.json"
        write(path, json.loads(path.read_text()) | {"drift": {"greedy": distances}})
    [arm, _] = effect_tables().read_arms(root)
    expected = "4 of 4 smaller, 1 up to the floor, left 30.0%"
    assert effect_tables().drift_summary(arm, "align", "greedy") == expected


def test_seeds_of_different_recipes_are_not_put_together(tmp_path: Path) -> None:
    archives = single_seeds(tmp_path, align={"num_steps": 41})
    with pytest.raises(
        SystemExit, match=r"seed-1.*cell full differs from that of seed-0.*in align\.num_steps: run the seed again"
    ):
        effect_script().unite(archives, tmp_path / "united")
