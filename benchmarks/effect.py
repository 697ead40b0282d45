"""Does alignment before RLVR help? Runs `recipes/ablations/effect.toml` seed by seed and puts the seeds together.

    python benchmarks/effect.py run 0 [1 …]    # every cell of these seeds, then their archive
    python benchmarks/effect.py report         # the table over all archived seeds, and runs/tiny-effect/report.html

A seed takes about an hour of one core and is resumed when it was cut off. Its archive in
`benchmarks/results/effect/` holds all that a report reads, but no weights and no texts of responses, so that seeds
can be run on several machines, or days.
"""

import argparse
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from prism.cli import main as prism
from prism.report import print_ablation_table

RECIPE = Path("recipes/ablations/effect.toml")
RUNS, ARCHIVES = Path("runs/tiny-effect"), Path(__file__).parent / "results" / "effect"
KEPT = {"recipe.json", "ablation.json", "manifest.json", "metrics.jsonl", "events.jsonl", "summary.json"}
ITEMS = "items.jsonl"


def run(seed: int) -> None:
    directory = RUNS.with_name(f"{RUNS.name}-{seed}")
    if status := prism(["ablate", str(RECIPE), f"seeds=[{seed}]", "--output", str(directory)]):
        raise SystemExit(status)
    ARCHIVES.mkdir(exist_ok=True)
    with tarfile.open(ARCHIVES / f"seed-{seed}.tar.xz", "w:xz") as archive:
        for path in kept(directory):
            add(archive, path, str(path.relative_to(directory)))


def kept(directory: Path) -> Iterator[Path]:
    """Links of the cells' stages, and the small files behind them."""
    for path in sorted(directory.rglob("*")):
        is_stale = any(".stale-" in part for part in path.parts)
        if not is_stale and (path.is_symlink() or (path.is_file() and path.name in KEPT | {ITEMS})):
            yield path


def add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    if path.is_symlink() or path.name != ITEMS:
        archive.add(path, name)
        return
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = (json.dumps({key: value for key, value in row.items() if key != "response"}) + "\n" for row in rows)
    data = "".join(lines).encode()
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def report() -> int:
    archives = sorted(ARCHIVES.glob("seed-*.tar.xz"))
    print("seeds:", ", ".join(path.name.removesuffix(".tar.xz").removeprefix("seed-") for path in archives))
    for path in archives:
        with tarfile.open(path) as archive:
            archive.extractall(RUNS, filter="data")
    print(print_ablation_table(RUNS))
    return prism(["report", str(RUNS)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run").add_argument("seeds", type=int, nargs="+")
    commands.add_parser("report")
    arguments = parser.parse_args()
    if arguments.command == "report":
        return report()
    for seed in arguments.seeds:
        # Each seed in a process of its own: threads and random state begin afresh.
        if len(arguments.seeds) > 1:
            subprocess.run([sys.executable, __file__, "run", str(seed)], check=True)
        else:
            run(seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
