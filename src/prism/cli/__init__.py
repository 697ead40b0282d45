"""The `prism` command: parses arguments and calls the part that does the work.

Everything heavy is imported inside the command that needs it, so that help and configuration errors
come at once.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prism import __version__
from prism.cli.arguments import add_command, add_overrides, add_recipe, count, non_negative, non_negative_count
from prism.cli.data import add_data
from prism.errors import AuditError, ConfigError, ModelError, PrismError
from prism.runtime.interrupt import Interrupted
from prism.runtime.launch import is_first

if TYPE_CHECKING:
    from prism.config import Recipe

STAGE_COMMANDS = {
    "base": "build the base model (the tiny one is taken as it is, or pretrained when base.source is pretrain)",
    "sft": "supervised fine-tuning of the base",
    "warmup": "upcycle the discriminator and warm it up on SFT rollouts",
    "align": "adversarial alignment of the policy",
    "rlvr": "reinforcement learning with verifiable rewards, every algorithm of the recipe",
}


FAILED = 2
"""Exit status of what is the user's to mend."""
FLAGGED = 3
"""Exit status where an audit raised a flag."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 the user's to mend (one line says what), 3 an audit raised a flag, 130 or 143
    stopped by a signal."""
    parsed = _parse(arguments)
    try:
        return parsed.command(parsed) or 0
    except AuditError as error:
        print(f"prism: {error}", file=sys.stderr)
        return FLAGGED
    except PrismError as error:
        print(f"prism: {error}", file=sys.stderr)
        return FAILED
    except Interrupted as stop:
        print(f"prism: {stop.message}", file=sys.stderr)
        return 128 + stop.signal_number
    except KeyboardInterrupt:
        print("prism: interrupted", file=sys.stderr)
        return 130


def run_pipeline(arguments: argparse.Namespace) -> None:
    from prism.config import describe_plan, select_stages

    recipe = _load(arguments)
    if arguments.stop_after is not None:
        select_stages(recipe, arguments.stop_after)
    if arguments.dry_run:
        print(recipe.model_dump_json(indent=2), "", *describe_plan(recipe), sep="\n")
        return
    from prism.stages.pipeline import run_recipe

    directory = run_recipe(recipe, stop_after=arguments.stop_after)
    if not is_first():
        return
    from prism.report import print_results_table, render_report

    if recipe.evaluation is not None:
        print(print_results_table(directory))
    print(f"report: {render_report(directory)}")


def run_stage(arguments: argparse.Namespace) -> None:
    from prism.config import select_stages

    recipe = _load(arguments)
    select_stages(recipe, arguments.stage)
    from prism.stages.pipeline import run_recipe

    run_recipe(recipe, only=arguments.stage)


def evaluate(arguments: argparse.Namespace) -> None:
    from prism.config import load_benchmark_recipe

    benchmarks = load_benchmark_recipe(arguments.recipe, arguments.overrides)
    if benchmarks is not None:
        from prism.evals.tables import format_benchmarks
        from prism.stages.benchmarks import run_benchmarks

        print(format_benchmarks(run_benchmarks(benchmarks)))
        print(f"results: {benchmarks.directory}")
        return
    recipe = _load(arguments)
    if recipe.evaluation is None:
        raise ConfigError(f"{arguments.recipe}: has no [evaluation] table, so there is nothing to evaluate")
    from prism.stages.pipeline import run_recipe

    run_recipe(recipe, only="eval")


def plan_recipe(arguments: argparse.Namespace) -> None:
    from prism.config import load_hardware

    recipe, hardware = _load(arguments), load_hardware(arguments.hardware, price=arguments.price)
    from prism.planning.plan import estimate
    from prism.planning.remedies import find_remedies
    from prism.planning.text import print_estimate

    found = estimate(recipe, hardware)
    print_estimate(found, () if found.fits else find_remedies(recipe, hardware))


def ablate(arguments: argparse.Namespace) -> int:
    from prism.config import load_ablation

    ablation = load_ablation(arguments.recipe, arguments.overrides, output=arguments.output, chosen=arguments.cell)
    if is_first():
        for reason in ablation.omitted.values():
            print(f"left out: {reason}")
    from prism.stages.ablation import describe_ablation, run_ablation

    if arguments.dry_run:
        print(*describe_ablation(ablation), sep="\n")
        return 0
    failures = run_ablation(ablation)
    if is_first():
        from prism.report import print_ablation_table, render_ablation

        print(print_ablation_table(ablation.directory))
        print(f"report: {render_ablation(ablation.directory)}")
    for failure in failures:
        print(f"prism: {failure}", file=sys.stderr)
    return FAILED if failures else 0


def audit_run(arguments: argparse.Namespace) -> int:
    recipe = _load(arguments)
    from prism.evals.audit_text import format_audit
    from prism.stages.audit import read_audit
    from prism.stages.pipeline import audit_recipe

    flags: list[str] = []
    for path in audit_recipe(recipe):
        document = read_audit(path)
        flags += document["flags"]
        if is_first():
            print(f"{format_audit(document)}\n\naudit: {path}\n")
    return FLAGGED if flags else 0


def compare_results(arguments: argparse.Namespace) -> None:
    from prism.stages.benchmarks import compare_directories

    print(compare_directories(arguments.first, arguments.second))


def upcycle_checkpoint(arguments: argparse.Namespace) -> None:
    from prism.config import MoeDiscriminator, build_config

    shape = {key: getattr(arguments, key) for key in ("num_experts", "top_k", "noise_std")}
    build_config(MoeDiscriminator, shape, (), source="prism upcycle")
    if arguments.out.exists():
        raise ConfigError(f"prism upcycle: {arguments.out} exists; name a directory that does not")
    from prism.models import PromptEncoder, load_policy, save_policy, upcycle
    from prism.runtime.atomic import atomic_directory

    sparse = upcycle(load_policy(arguments.dense), **shape, seed=arguments.seed)
    with atomic_directory(arguments.out) as directory:
        save_policy(sparse, PromptEncoder.from_pretrained(arguments.dense), directory)


def report_run(arguments: argparse.Namespace) -> None:
    from prism.config import LISTING
    from prism.report import render_ablation, render_report

    is_ablation = (arguments.run / LISTING).is_file()
    print((render_ablation if is_ablation else render_report)(arguments.run, arguments.output))


def sample_checkpoint(arguments: argparse.Namespace) -> None:
    from prism.records import ImageSource, Prompt
    from prism.rollout.sampling import Sampling
    from prism.rollout.transformers_engine import TransformersEngine

    prompt = Prompt("sample", arguments.question, tuple(ImageSource(path=path) for path in arguments.image))
    engine = TransformersEngine.of_checkpoint(_model_directory(arguments), precision=arguments.precision)
    sampling = Sampling(arguments.temperature, arguments.max_response_tokens)
    [group] = engine.generate([prompt], num_samples=arguments.num_samples, sampling=sampling, seed=arguments.seed)
    print("\n\n".join(rollout.text for rollout in group.rollouts))


def serve_rollouts(arguments: argparse.Namespace) -> None:
    from prism.config import ServeConfig, build_config

    config = build_config(ServeConfig, {}, arguments.overrides, source="prism serve")
    from prism.rollout.serving import serve

    serve(_model_directory(arguments), config, arguments.host, arguments.port)


def _model_directory(arguments: argparse.Namespace) -> Path:
    """Raises ModelError for one that is not there: it would be taken for a model's name, and looked for on the hub."""
    if not arguments.checkpoint.is_dir():
        raise ModelError(f"{arguments.checkpoint}: there is no such model directory")
    return arguments.checkpoint


def _load(arguments: argparse.Namespace) -> "Recipe":
    from prism.config import load_recipe

    return load_recipe(arguments.recipe, arguments.overrides)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _build_parser()
    parsed, rest = parser.parse_known_args(arguments)
    # argparse gives all positionals to the first run of them, so key=value after an option comes back here.
    is_override = hasattr(parsed, "overrides") and all("=" in text and not text.startswith("-") for text in rest)
    if rest and not is_override:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        parsed.overrides += rest
    return parsed


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prism", description="SFT, adversarial alignment and RLVR for Qwen3-VL.")
    parser.add_argument("--version", action="version", version=f"prism {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    run = add_command(commands, "run", run_pipeline, "run or resume a whole recipe")
    add_recipe(run)
    run.add_argument("--dry-run", action="store_true", help="print the resolved configuration and the plan, do nothing")
    run.add_argument(
        "--stop-after", metavar="STAGE", help="stop once this stage is complete (a name or kind in the plan)"
    )
    for stage, text in STAGE_COMMANDS.items():
        command = add_command(commands, stage, run_stage, f"one stage: {text}")
        command.set_defaults(stage=stage)
        add_recipe(command)
    _add_plan(commands)
    _add_evaluation(commands)
    add_recipe(add_command(commands, "audit", audit_run, "look for what tells teacher from rollout besides content"))
    _add_ablation(commands)
    _add_upcycle(commands)
    _add_report(commands)
    add_data(commands)
    _add_sample(commands)
    _add_serve(commands)
    return parser


def _add_plan(commands: Any) -> None:
    parser = add_command(
        commands, "plan", plan_recipe, "memory, work, time and money that a recipe would take, without running it"
    )
    add_recipe(parser)
    parser.add_argument(
        "--hardware",
        metavar="NAME|FILE",
        required=True,
        help="8xh100, 4x8xh100 (four machines), or a TOML file",
    )
    parser.add_argument(
        "--price", metavar="P", type=non_negative, help="of a device for an hour; default: that of the file"
    )


def _add_evaluation(commands: Any) -> None:
    parser = add_command(
        commands, "eval", evaluate, "evaluate every stage of a run on its test set, or one model on benchmarks"
    )
    parser.add_argument(
        "recipe", metavar="RECIPE", help="a run's recipe, or one with [[benchmarks]] such as recipes/eval/seven.toml"
    )
    add_overrides(parser, "model.path=runs/tiny-demo/seed-0/sft/model")
    compare = add_command(commands, "compare", compare_results, "compare two results of `prism eval`, paired by item")
    for name in ("first", "second"):
        compare.add_argument(name, metavar=name.upper(), type=Path, help="directory of benchmark results")


def _add_ablation(commands: Any) -> None:
    parser = add_command(
        commands, "ablate", ablate, "run a recipe in variants, the paper's by default, and compare them"
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a run's recipe, or a file that lists cells")
    add_overrides(parser, "align.num_steps=20")
    parser.add_argument(
        "--cell", metavar="NAME", action="append", default=[], help="only this cell; repeat for several"
    )
    parser.add_argument("--output", metavar="DIR", type=Path, help="default: runs/<name>")
    parser.add_argument("--dry-run", action="store_true", help="print the plan of every cell, do nothing")


def _add_upcycle(commands: Any) -> None:
    parser = add_command(commands, "upcycle", upcycle_checkpoint, "make a mixture of experts from a dense Qwen3-VL")
    parser.add_argument("dense", metavar="DENSE", type=Path, help="directory of the dense model")
    parser.add_argument("out", metavar="OUT", type=Path, help="directory to write")
    parser.add_argument("--num-experts", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--top-k", type=int, default=2, help="experts per token; default: %(default)s")
    parser.add_argument("--noise-std", type=float, default=0.01, help="noise on the copies; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")


def _add_report(commands: Any) -> None:
    parser = add_command(commands, "report", report_run, "write one self-contained HTML file about a run")
    parser.add_argument("run", metavar="RUN", type=Path, help="directory of a run or of an ablation")
    parser.add_argument("--output", metavar="F", type=Path, help="file to write; default: RUN/report.html")


def _add_sample(commands: Any) -> None:
    parser = add_command(commands, "sample", sample_checkpoint, "ask a checkpoint a question about images")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="model directory")
    parser.add_argument("--image", metavar="F", type=Path, action="append", default=[], help="repeat for several")
    parser.add_argument("--question", metavar="Q", required=True, help="<image> marks an image's place; default: first")
    parser.add_argument("--num-samples", type=count, default=1, help="default: %(default)s")
    parser.add_argument("--temperature", type=non_negative, default=1.0, help="0 is greedy; default: %(default)s")
    parser.add_argument("--max-response-tokens", type=count, default=512, help="default: %(default)s")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")


def _add_serve(commands: Any) -> None:
    parser = add_command(commands, "serve", serve_rollouts, "sample for training runs, on devices of its own")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="a model of the policy's architecture")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; default: %(default)s")
    parser.add_argument(
        "--port", type=non_negative_count, default=8765, help="0 takes a free one; default: %(default)s"
    )
    add_overrides(parser, "rollout.memory_fraction=0.9")
