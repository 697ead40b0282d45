"""What is not training: verifying answers, reading data, checkpoints, start-up; each beside a rival where there is one.

    python benchmarks/overheads.py [--rows 200] [--pairs 5]

- Verifier: our verdicts on labelled answers, nothing remembered, against `math_verify` alone; how many of them each
  decides rightly is printed.
- Data: a parquet file with one image of 512 × 512 pixels a row, read and every image decoded; the rival is `datasets`,
  which first makes its own copy of the file, as on every first run.
- Checkpoints of policy and AdamW (132 MB): ours are hashed, synced to the disk and verified when read; the rivals,
  `torch.save` and `torch.distributed.checkpoint`, do none of that.
- Patch embedding of an image of 256 tokens at the width of Qwen3-VL-4B, forward and backward; the rival is the
  convolution that transformers calls.
- Start-up: `prism --help` and `prism run --dry-run` against `import torch, transformers`, which a command that needs
  both cannot be faster than.

Clock time, of which a busy machine gives more.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed.checkpoint as distributed_checkpoint
from datasets import Dataset, Image, List, disable_progress_bars
from math_verify import parse, verify
from side_by_side import Writer, make_encoder, make_policy, parse_arguments, run_pairs
from torch import nn
from verifier import CASES, forget

from prism.data.readers import read_examples
from prism.data.writers import write_verl_parquet
from prism.models.patches import project_patches
from prism.records import Example
from prism.rewards import verify_answer
from prism.runtime.checkpoint import load_latest, save_checkpoint
from prism.runtime.optimizer import make_optimizer
from prism.stages.row_check import check_decoded
from prism.stages.shared_check import ImageMemory, SharedCheck

RECIPE = Path(__file__).parents[1] / "recipes" / "tiny" / "demo.toml"

Report = Callable[[str, Callable[[], object], Callable[[], object]], None]


def verifier(report: Report) -> None:
    rows = [json.loads(line) for line in CASES.read_text("utf-8").splitlines()]

    def ours() -> list[bool]:
        forget()
        return [verify_answer(row["prediction"], row["ground_truth"]) == "correct" for row in rows]

    def rival() -> list[bool]:
        return [verify(parse(f"${row['ground_truth']}$"), parse(row["prediction"])) for row in rows]

    labels = [row["expected"] for row in rows]
    right = [sum(a == b for a, b in zip(way(), labels, strict=True)) for way in (ours, rival)]
    print(f"verifier: {right[0]} of {len(rows)} labelled answers decided rightly, by math_verify {right[1]}")
    report("verifier, all labelled answers", ours, rival)


def data(report: Report, directory: Path, num_rows: int) -> None:
    writer = Writer(make_encoder())
    examples = [Example(writer.prompt(f"p{number}", 256), writer.response(200)) for number in range(num_rows)]
    file = directory / "data.parquet"
    write_verl_parquet(file, examples)
    caches = iter(range(10**6))

    def ours() -> int:
        return sum(1 for _ in read_examples(file, check_all=SharedCheck(check_decoded, ImageMemory(None))))

    def rival() -> int:
        read: Any = Dataset.from_parquet(str(file), cache_dir=str(directory / f"cache{next(caches)}"))
        rows = read.cast_column("images", List(Image()))
        return sum(bool(row["images"][0].size) for row in rows)

    assert ours() == rival() == num_rows
    report(f"reading {num_rows} rows with images", ours, rival)


def checkpoints(report: Report, directory: Path) -> None:
    policy = make_policy(make_encoder())
    optimizer = make_optimizer(policy, learning_rate=1e-6, weight_decay=0.01)
    for parameter in policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    own, saved, shared = directory / "ours", directory / "saved.pt", directory / "shared"
    modules, optimizers = {"policy": policy}, {"policy": optimizer}

    def state() -> dict[str, Any]:
        return {"policy": policy.state_dict(), "optimizer": optimizer.state_dict()}

    def save_ours() -> None:
        save_checkpoint(own, step=1, modules=modules, optimizers=optimizers, schedulers={}, state={})

    def load_ours() -> None:
        load_latest(own, modules=modules, optimizers=optimizers, schedulers={})

    def load_saved() -> None:
        found = torch.load(saved, weights_only=True)
        policy.load_state_dict(found["policy"])
        optimizer.load_state_dict(found["optimizer"])

    def save_shared() -> None:
        distributed_checkpoint.save(state(), checkpoint_id=shared)

    def load_shared() -> None:
        found = state()
        distributed_checkpoint.load(found, checkpoint_id=shared)
        optimizer.load_state_dict(found["optimizer"])

    report("saving, torch.save", save_ours, lambda: torch.save(state(), saved))
    report("saving, torch.distributed.checkpoint", save_ours, save_shared)
    report("loading, torch.load", load_ours, load_saved)
    report("loading, torch.distributed.checkpoint", load_ours, load_shared)


def patch_embedding(report: Report) -> None:
    convolution = nn.Conv3d(3, 1024, (2, 16, 16), stride=(2, 16, 16))
    model = nn.ModuleDict({"patch_embed": nn.ModuleDict({"proj": deepcopy(convolution)})})
    project_patches(model)
    pixels = torch.randn(1024, 3, 2, 16, 16)

    def step_of(module: nn.Module) -> Callable[[], object]:
        return lambda: module(pixels).sum().backward()

    report("patch embedding", step_of(model.get_submodule("patch_embed.proj")), step_of(convolution))


def start_up(report: Report) -> None:
    def command(*words: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)

    rival = command("-c", "import torch, transformers; transformers.AutoModelForImageTextToText")
    report("prism --help, imports", command("-m", "prism", "--help"), rival)
    report("prism run --dry-run, imports", command("-m", "prism", "run", str(RECIPE), "--dry-run"), rival)


def measure(num_rows: int, num_pairs: int) -> None:
    def report(name: str, ours: Callable[[], object], rival: Callable[[], object]) -> None:
        print(run_pairs(ours, rival, num_pairs, now=time.perf_counter).describe(name), flush=True)

    disable_progress_bars()
    with TemporaryDirectory() as directory:
        verifier(report)
        data(report, Path(directory), num_rows)
        checkpoints(report, Path(directory))
        patch_embedding(report)
        start_up(report)


def main() -> None:
    arguments = parse_arguments(__doc__, rows=200, pairs=5)
    measure(arguments.rows, arguments.pairs)


if __name__ == "__main__":
    main()
