"""Does alignment before RLVR help? Runs an ablation seed by seed and puts the seeds together.

    python benchmarks/effect.py base 0 [1 …]                     # pretrains a base for each of these seeds, to keep
    python benchmarks/effect.py [--recipe effect] run 0 [1 …]    # every cell of these seeds, then their archive;
                                                                 # --cell NAME: these cells, added to the archive
    python benchmarks/effect.py [--recipe effect] report         # the tables over all archived seeds, and a page;
                                                                 # --reference CELL: what it is ahead of the others

The recipe is one of `recipes/ablations/` (`EXPERIMENTS`). A seed takes an hour and more of one core and is resumed when
it was cut off. Its archive in `benchmarks/results/RECIPE/` holds what a report reads, except samples and texts of
responses, and no weights, so that seeds can be run on several machines, or days, and so can cells of one seed, where
SFT and whatever else they share comes out equal to the bit. `tuned-effect` starts from the bases in
`benchmarks/bases/`, in bfloat16.
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from effect_tables import tables

from prism.cli import main as prism
from prism.config import CELLS, FAILURE, LISTING, Ablation, Recipe, load_ablation, load_recipe
from prism.models import PromptEncoder, load_policy, save_policy
from prism.report import print_ablation_table
from prism.report.ablation import changed_settings
from prism.runtime.jsonl import read_jsonl
from prism.runtime.manifest import FILE_NAME as MANIFEST

RECIPES, RUNS, RESULTS = Path("recipes/ablations"), Path("runs"), Path(__file__).parent / "results"
BASES = Path(__file__).parent / "bases"
KEPT = {
    *("recipe.json", LISTING, MANIFEST, FAILURE, "teacher_distribution.json"),
    *("metrics.jsonl", "timings.jsonl", "router.jsonl", "events.jsonl", "summary.json", "audit.json", "audits.jsonl"),
}
EXPERIMENTS = ("effect", "noisy-effect", "tuned-effect")
"""The recipes whose seeds are archived."""
ITEMS = "items.jsonl"


def run(recipe: str, seed: int, cells: list[str]) -> None:
    directory, path = RUNS / f"tiny-{recipe}-{seed}", RESULTS / recipe / f"seed-{seed}.tar.xz"
    file, changes = RECIPES / f"{recipe}.toml", [f"seeds=[{seed}]"]
    with unpacked(path) as archived:  # before hours of work; `pack` looks at what came out of them
        check_recipes(path, archived, load_ablation(file, changes))
        check_stages(path, archived, directory)
    status = prism(["ablate", str(file), *changes, "--output", str(directory), *chosen(cells)])
    if (directory / LISTING).is_file():
        # A cell that fails keeps the others from nothing, and why it failed is a result.
        pack(directory, path)
    if status:
        raise SystemExit(status)


def chosen(cells: list[str]) -> list[str]:
    return [argument for cell in cells for argument in ("--cell", cell)]


def pretrain(seed: int) -> None:
    """`prism base recipes/tiny/base.toml` with `seed`, kept in half of its size."""
    directory = RUNS / f"tiny-base-{seed}"
    if status := prism(["base", "recipes/tiny/base.toml", f"seeds=[{seed}]", f"output={directory}"]):
        raise SystemExit(status)
    keep(directory / f"seed-{seed}" / "base" / "model", BASES / f"seed-{seed}")


def keep(model: Path, path: Path) -> None:
    """Copies a base with its weights rounded to bfloat16. SystemExit where another is kept: arms started from it."""
    if path.exists():
        raise SystemExit(f"{path} exists: remove it, and every archive of runs that started from it, to make it anew")
    save_policy(load_policy(model, dtype="bfloat16"), PromptEncoder.from_pretrained(model), path)


def pack(directory: Path, path: Path) -> None:
    """The archive `path` of one seed's ablation in `directory`, and of the cells that it has from elsewhere; an error
    that a cell ended with is kept until it comes to its end. Of stages that both have the archived files stay, with
    which reports were made.

    Raises SystemExit where the two do not belong together: a stage that both have came out otherwise.
    """
    path.parent.mkdir(exist_ok=True)
    packed = path.with_name(f".{path.name}.part")
    with unpacked(path) as archived:
        check_stages(path, archived, directory)
        files = {kept.relative_to(root): kept for root in (archived, directory) for kept in kept_files(root)}
        files |= {kept.relative_to(archived): kept for kept in kept_files(archived / "store")}
        for failure in [name for name, kept in files.items() if name.name == FAILURE and kept.is_relative_to(archived)]:
            if (directory / failure.parent).is_dir():
                del files[failure]
        with tarfile.open(packed, "w:xz") as archive:
            for name, kept in sorted(files.items()):
                add(archive, kept, str(name))
    packed.replace(path)


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A directory with what the archive `path` holds, nothing where there is none."""
    with TemporaryDirectory() as directory:
        if path.exists():
            unpack(path, Path(directory))
        yield Path(directory)


def unpack(path: Path, directory: Path) -> list[str]:
    """Writes what an archive holds, nothing outside `directory`, to which Python before 3.11.4 cannot see; names."""
    with tarfile.open(path) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(directory)
        return archive.getnames()


def check_recipes(path: Path, archived: Path, ablation: Ablation) -> None:
    """SystemExit where `path` has a cell of another recipe than the ablation's now, with which others are compared."""
    for file in sorted(archived.glob(f"{CELLS}/*/recipe.json")):
        name, recipe = file.parent.name, load_recipe(file)
        own = ablation.cells.get(name)
        if own is None or recipe.model_copy(update={"output": own.output}) != own:
            raise SystemExit(f"{path}: the recipe of its cell {name} is not the ablation's now: move the archive away")


def check_stages(path: Path, archived: Path, directory: Path) -> None:
    """SystemExit where a stage came out otherwise in `directory` than in `path`, unpacked in `archived`.

    Paired arms start from the same weights. Stages are repeated to the bit by the same versions on the same kind of
    processor, so that a manifest, which has a hash of everything read and written, tells. Cells may be of different
    code where what they share comes out equal; of an evaluation that is what it read, since newer code measures more
    and batches otherwise.
    """
    for ours in filter(lambda kept: kept.name == MANIFEST, kept_files(directory)):
        name = ours.relative_to(directory)
        if (theirs := archived / name).exists() and hashes(theirs) != hashes(ours):
            cells = {found.parent.name for found in archived.glob(f"{CELLS}/*/recipe.json")}
            raise SystemExit(
                f"{path} was run where {name.parent} came out otherwise than in {directory}: run all of its cells "
                f"here, {' '.join(chosen(sorted(cells)))}, after moving it away"
            )


def hashes(manifest: Path) -> tuple[Any, Any]:
    """Hashes of what a stage read and of what it wrote, unless it is an evaluation."""
    content = json.loads(manifest.read_text(encoding="utf-8"))
    return content["inputs"], None if manifest.parent.name == "evaluation" else content["outputs"]


def kept_files(directory: Path) -> Iterator[Path]:
    """Links of the cells' stages, and the small files behind them, but for stages that have not come to their end."""
    unfinished = {found.parent for found in directory.glob(f"store/**/{MANIFEST}") if not is_complete(found)}
    for path in sorted(directory.rglob("*")):
        is_passing = any(".stale-" in part for part in path.relative_to(directory).parts)
        is_passing = is_passing or not unfinished.isdisjoint(path.parents)
        if not is_passing and (path.is_symlink() or (path.is_file() and path.name in KEPT | {ITEMS})):
            yield path


def is_complete(manifest: Path) -> bool:
    """Of a stage that has come to its end; a checkpoint's manifest has no status and never is."""
    return json.loads(manifest.read_text(encoding="utf-8")).get("status") == "complete"


def add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    if path.is_symlink() or path.name != ITEMS:
        archive.add(path, name)
        return
    kept = ({key: value for key, value in row.items() if key != "response"} for row in read_jsonl(path))
    lines = (json.dumps(row) + "\n" for row in kept)
    data = "".join(lines).encode()
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def unite(archives: list[Path], directory: Path, reference: str | None = None) -> None:
    """Puts the seeds of `archives` into `directory`, anew, as if one command had run them all; with differences to the
    cell `reference`, or to the recipe's.

    Raises SystemExit where two seeds ran different recipes: their mean would be that of no experiment.
    """
    if directory.exists():
        shutil.rmtree(directory)
    cells: dict[str, list[Recipe]] = {}
    listed: dict[str, None] = {}
    for path in archives:
        # Of this archive: another's cell that it lacks lies there as well.
        names = sorted(unpack(path, directory))
        files = [directory / name for name in names if fnmatch(name, f"{CELLS}/*/recipe.json")]
        listing = json.loads((directory / LISTING).read_text(encoding="utf-8"))
        listed |= dict.fromkeys(listing["cells"])
        for file in files:
            # As it is read now, so that a setting that an older version did not know is there with its default.
            recipe = load_recipe(file)
            first = cells.setdefault(file.parent.name, [])
            if first and (differing := changed_settings(recipe, first[0]) | changed_settings(first[0], recipe)):
                raise SystemExit(
                    f"{path}: the recipe of cell {file.parent.name} differs from that of {archives[0].name} in "
                    f"{', '.join(differing)}: run the seed again"
                )
            first.append(recipe)
    if reference is not None and reference not in cells:
        raise SystemExit(f"--reference {reference}: no seed is archived with it; there are: {', '.join(cells)}")
    table = {"reference": reference or listing["reference"], "cells": list(listed)}
    (directory / LISTING).write_text(json.dumps(table), encoding="utf-8")
    for name, recipes in cells.items():
        seeds = tuple(seed for recipe in recipes for seed in recipe.seeds)
        united = recipes[0].model_copy(update={"seeds": seeds, "output": directory / CELLS / name})
        (directory / CELLS / name / "recipe.json").write_text(united.model_dump_json(), encoding="utf-8")


def report(recipe: str, reference: str | None) -> int:
    archives = sorted((RESULTS / recipe).glob("seed-*.tar.xz"))
    if not archives:
        raise SystemExit(f"{RESULTS / recipe}: no seed is archived yet: run one first")
    united = RUNS / f"tiny-{recipe}-united"
    unite(archives, united, reference)
    print(print_ablation_table(united))
    print("\n".join(tables(united)))
    return prism(["report", str(united)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="effect", choices=EXPERIMENTS)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("base", "run"):
        commands.add_parser(name).add_argument("seeds", type=int, nargs="+")
    commands.choices["run"].add_argument("--cell", action="append", default=[], dest="cells", metavar="NAME")
    commands.add_parser("report").add_argument("--reference", metavar="CELL")
    arguments = parser.parse_args()
    if arguments.command == "report":
        return report(arguments.recipe, arguments.reference)
    status = 0
    for seed in arguments.seeds:
        # Each seed in a process of its own: threads and random state begin afresh.
        if len(arguments.seeds) > 1:
            command = [sys.executable, __file__, "--recipe", arguments.recipe, arguments.command, str(seed)]
            command += chosen(arguments.cells) if arguments.command == "run" else []
            status = subprocess.run(command).returncode or status
        elif arguments.command == "base":
            pretrain(seed)
        else:
            run(arguments.recipe, seed, arguments.cells)
    return status


if __name__ == "__main__":
    sys.exit(main())
