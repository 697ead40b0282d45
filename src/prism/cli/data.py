"""`prism data …`: from raw problems to the files that the stages read."""

import argparse
from pathlib import Path
from typing import Any

from prism.cli.arguments import Command, add_command, add_overrides, count


def synthesize_data(arguments: argparse.Namespace) -> None:
    from prism.config import WorldData, build_config

    config = build_config(WorldData, {}, arguments.overrides, source="prism data synth")
    from prism.stages.datasets import write_world

    write_world(config, arguments.out, seed=arguments.seed)


def import_data(arguments: argparse.Namespace) -> None:
    from prism.curation import Part, Store, count_import
    from prism.curation.importing import ImportSettings, import_files
    from prism.data.remote_images import ImageFetcher

    columns = dict(text.split("=", 1) for text in arguments.column)
    settings = ImportSettings(arguments.image_root, columns, ImageFetcher() if arguments.fetch_images else None)
    part, store = Part.parse(arguments.shard), Store.create(arguments.store, arguments.num_shards)
    for file, num_new in import_files(store, arguments.files, source=arguments.source, settings=settings, part=part):
        print(f"{file}: {num_new:,} new rows")
    print(*(line for funnel in count_import(store).values() for line in funnel.lines()), sep="\n")


def rate_data(arguments: argparse.Namespace) -> None:
    from prism.config import DifficultyRecipe, load_settings

    recipe = load_settings(DifficultyRecipe, arguments.recipe, arguments.overrides)
    from prism.curation import Part, Store
    from prism.curation.difficulty import STEP, run_difficulty

    store, part = Store(arguments.store), Part.parse(arguments.shard)
    run_difficulty(store, recipe, part)
    _print_step(store, STEP, part)


def teach_data(arguments: argparse.Namespace) -> None:
    from prism.config import TeachRecipe, load_settings

    recipe = load_settings(TeachRecipe, arguments.recipe, arguments.overrides)
    from prism.curation import Part, Store
    from prism.curation.teach import STEP, run_teach

    store, part = Store(arguments.store), Part.parse(arguments.shard)
    run_teach(store, recipe, part)
    _print_step(store, STEP, part)


def split_data(arguments: argparse.Namespace) -> None:
    from prism.config import SplitConfig, build_config

    config = build_config(SplitConfig, {}, arguments.overrides, source="prism data split")
    from prism.curation import Part, Store, run_whole_step
    from prism.curation.split import STEP, Split

    store, part = Store(arguments.store), Part.parse(arguments.shard)
    run_whole_step(store, Split(config), part, _executor(arguments))
    _print_step(store, STEP, part)
    print(*_count_splits(store), sep="\n")


def _executor(arguments: argparse.Namespace) -> Any:
    """Who does a step's work: processes of this machine, or Ray."""
    if arguments.on_ray:
        from prism.curation.on_ray import on_ray

        return on_ray
    from prism.curation.processes import Processes

    return Processes(arguments.workers)


def _count_splits(store: Any) -> list[str]:
    from collections import Counter

    from prism.curation.split import SPLITS, STEP

    counts = Counter(outcome.findings.get("split") for outcome in store.outcomes(STEP))
    return [f"  {counts[split]:>9,} {split}" for split in SPLITS]


def pair_data(arguments: argparse.Namespace) -> None:
    from prism.config import PairsRecipe, load_settings

    recipe = load_settings(PairsRecipe, arguments.recipe, arguments.overrides)
    from prism.curation import Part, Store
    from prism.curation.pairs import STEP, run_pairs

    store, part = Store(arguments.store), Part.parse(arguments.shard)
    run_pairs(store, recipe, part)
    _print_step(store, STEP, part)


def export_data(arguments: argparse.Namespace) -> None:
    from prism.curation import Store
    from prism.curation.exporting import export

    for name, num_rows in export(Store(arguments.store), arguments.out, arguments.format).items():
        print(f"{arguments.out / name}: {num_rows:,} rows")
    print(f"a recipe trains on them with the table in {arguments.out / 'data.toml'}")


def describe_data(arguments: argparse.Namespace) -> None:
    from prism.curation import Store
    from prism.curation.statistics import collect, statistics_lines

    store = Store(arguments.store)
    print(*statistics_lines(collect(store)), sep="\n")
    from prism.report import render_data_card

    print(f"data card: {render_data_card(store.directory, arguments.output)}")


def verify_data(arguments: argparse.Namespace) -> None:
    from prism.config import VerifyRecipe, load_settings

    recipe = load_settings(VerifyRecipe, arguments.recipe, arguments.overrides)
    from prism.curation import Part, Store, decontaminate, dedup, run_whole_step, verify

    store, part, executor = Store(arguments.store), Part.parse(arguments.shard), _executor(arguments)
    verify.run_verify(store, recipe, part, executor)
    if recipe.against:
        decontaminate.run_decontaminate(store, recipe.against, part, executor)
    run_whole_step(store, dedup.Dedup(store.images.root), part, executor)
    steps = [verify.STEP, *([decontaminate.STEP] if recipe.against else []), dedup.STEP]
    for step in steps:
        _print_step(store, step, part)
    _write_report(store, steps, arguments.report)


def decontaminate_data(arguments: argparse.Namespace) -> None:
    from prism.config import DecontaminateRecipe, load_settings

    recipe = load_settings(DecontaminateRecipe, arguments.recipe, arguments.overrides)
    from prism.curation import Part, Store
    from prism.curation.decontaminate import STEP, run_decontaminate

    store, part = Store(arguments.store), Part.parse(arguments.shard)
    run_decontaminate(store, recipe.against, part, _executor(arguments))
    _print_step(store, STEP, part)
    _write_report(store, [STEP], arguments.report)


def _write_report(store: Any, steps: list[str], path: Path | None) -> None:
    from prism.curation.drop_report import write_drop_report

    if path is not None:
        write_drop_report(store, steps, path)
        print(f"report: {path}")


def plan_data(arguments: argparse.Namespace) -> None:
    from prism.curation import Store
    from prism.curation.forecast import forecast

    planned = dict(arguments.rows)
    print(*forecast(Store(arguments.store), planned).lines(arguments.processes), sep="\n")


def _print_step(store: Any, step: str, part: Any) -> None:
    """The step's counts, and what it has spent."""
    from prism.curation import count_step
    from prism.curation.spending import count_spending

    print(*count_step(store, step).lines(), *count_spending(store, step, part).lines(), sep="\n")


def add_data(commands: Any) -> None:
    parser = commands.add_parser("data", help="make data sets", description="Make data sets.")
    subcommands = parser.add_subparsers(metavar="COMMAND", required=True)
    synth = add_command(subcommands, "synth", synthesize_data, "write the data of the built-in world")
    synth.add_argument("out", metavar="OUT", type=Path, help="directory to write")
    synth.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    add_overrides(synth, "public=500")
    _add_import(subcommands)
    _add_asking_step(subcommands, "difficulty", rate_data, "find how often models solve each problem", "num_samples=8")
    _add_asking_step(subcommands, "teach", teach_data, "ask a teacher for demonstrations", "num_samples=4")
    _add_removing_step(
        subcommands,
        "verify",
        verify_data,
        "keep demonstrations that hold, of problems in no evaluation set, each problem once",
        "min_caption_items=4",
    )
    _add_removing_step(
        subcommands, "decontaminate", decontaminate_data, "remove what is in evaluation sets", "extends=other.toml"
    )
    _add_selection(subcommands)


def _add_selection(subcommands: Any) -> None:
    split = _add_step(subcommands, "split", split_data, "reserve the best rows for alignment and RL, the rest for SFT")
    _add_workers(split)
    add_overrides(split, "alignment=6000")
    _add_asking_step(
        subcommands, "pairs", pair_data, "sample an SFT model beside the demonstrations for alignment", "num_samples=4"
    )
    plan = add_command(subcommands, "plan", plan_data, "hours, cost and disk of curating many rows, by a trial on few")
    plan.add_argument("store", metavar="STORE", type=Path, help="a store whose steps ran on some hundred rows")
    plan.add_argument("rows", metavar="SOURCE=N", type=_planned_rows, nargs="+", help="as in public=1260000")
    plan.add_argument("--processes", metavar="N", type=count, default=1, help="that share the work; default: 1")
    stats = add_command(subcommands, "stats", describe_data, "print what a store holds, and write its data card")
    stats.add_argument("store", metavar="STORE", type=Path, help="directory of the store")
    stats.add_argument("--output", metavar="F", type=Path, help="HTML file to write; default: STORE/card.html")
    export = add_command(subcommands, "export", export_data, "write every split as files that trainers read")
    export.add_argument("store", metavar="STORE", type=Path, help="directory of the store")
    export.add_argument("out", metavar="OUT", type=Path, help="directory to write")
    export.add_argument(
        "--format",
        metavar="NAME",
        action="append",
        default=[],
        help="sharegpt, verl, trl, imagefolder or pairs; repeat",
    )


def _planned_rows(text: str) -> tuple[str, int]:
    source, _, number = text.partition("=")
    if not source or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} must be like public=1260000")
    return source, int(number)


def _add_import(subcommands: Any) -> None:
    command = _add_step(subcommands, "import", import_data, "add the rows of data files to a store, made if need be")
    command.add_argument("files", metavar="FILE", type=Path, nargs="+", help="JSON, JSON lines or parquet")
    command.add_argument("--source", metavar="NAME", help="what the rows' ids begin with; default: the file's name")
    command.add_argument("--image-root", metavar="DIR", type=Path, help="where images lie; default: the file's folder")
    command.add_argument(
        "--column", metavar="OURS=THEIRS", type=_assignment, action="append", default=[], help="as in prompt=problem"
    )
    command.add_argument("--fetch-images", action="store_true", help="fetch images that are named by http addresses")
    command.add_argument("--num-shards", metavar="N", type=count, help="of a new store; default: 16")


def _add_step(subcommands: Any, name: str, command: Command, text: str) -> argparse.ArgumentParser:
    """A command that works on a store or on one process's part of it."""
    parser = add_command(subcommands, name, command, text)
    parser.add_argument("store", metavar="STORE", type=Path, help="directory of the store")
    parser.add_argument(
        "--shard", metavar="I/N", default="0/1", help="this process's part of the shards, from 0/N; default: all"
    )
    return parser


def _add_asking_step(subcommands: Any, name: str, command: Command, text: str, example: str) -> argparse.ArgumentParser:
    parser = _add_step(subcommands, name, command, text)
    parser.add_argument("recipe", metavar="RECIPE", help="a TOML file such as those in recipes/data")
    add_overrides(parser, example)
    return parser


def _add_removing_step(subcommands: Any, name: str, command: Command, text: str, example: str) -> None:
    parser = _add_asking_step(subcommands, name, command, text, example)
    parser.add_argument("--report", metavar="F", type=Path, help="JSON file to write: what was dropped, with examples")
    _add_workers(parser)


def _add_workers(parser: argparse.ArgumentParser) -> None:
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--workers", metavar="N", type=count, help="processes that look at rows; default: one a processor")
    who.add_argument("--on-ray", action="store_true", help="work on a Ray cluster, that of RAY_ADDRESS or a local one")


def _assignment(text: str) -> str:
    if not all(text.partition("=")):
        raise argparse.ArgumentTypeError(f"{text!r} must be like prompt=problem")
    return text
