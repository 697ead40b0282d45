"""Whether TRL and LLaMA-Factory take an export as it is: their own code reads it, and TRL trains on it.

    python -m venv .venv-trl
    .venv-trl/bin/pip install -e ".[lora]" "trl==1.16.0"
    .venv-trl/bin/pip install --no-deps "llamafactory==0.9.5"
    .venv-trl/bin/python benchmarks/export_check.py trl OUT
    .venv-trl/bin/python benchmarks/export_check.py llamafactory OUT

`OUT` is what `prism data export` wrote, in the formats trl and sharegpt. TRL: two steps of SFTTrainer and one of
GRPOTrainer with the shipped tiny base. LLaMA-Factory: its dataset parser, its converter, and its image plugin opening
every picture; its packages' own initialisation is passed over, which imports audio and more.
"""

import importlib
import importlib.util
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from datasets import load_dataset

from prism.models import PromptEncoder, load_policy
from prism.stages.workspace import SHIPPED_BASE

COMMON = {"bf16": False, "use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True}


def check_trl(out: Path, scratch: str) -> None:
    trl: Any = importlib.import_module("trl")
    splits = {
        name: load_dataset("parquet", data_files=str(out / "trl" / f"{name}.parquet"), split="train", cache_dir=scratch)
        for name in ("sft", "rl")
    }
    processor = PromptEncoder.from_pretrained(SHIPPED_BASE).processor
    model = load_policy(SHIPPED_BASE)
    config = trl.SFTConfig(output_dir=scratch, max_steps=2, per_device_train_batch_size=2, max_length=None, **COMMON)
    sft = trl.SFTTrainer(model=model, args=config, train_dataset=splits["sft"], processing_class=processor)
    print(f"SFTTrainer, {len(splits['sft'])} rows: loss {sft.train().training_loss:.3f}")

    seen: list[str] = []

    def reward(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
        seen.extend(answer)
        return [float(index) for index in range(len(completions))]

    shape = {"per_device_train_batch_size": 2, "num_generations": 2, "max_completion_length": 4, "max_steps": 1}
    config = trl.GRPOConfig(output_dir=scratch, **shape, **COMMON)
    grpo = trl.GRPOTrainer(
        model=model, reward_funcs=reward, args=config, train_dataset=splits["rl"], processing_class=processor
    )
    grpo.train()
    print(f"GRPOTrainer, {len(splits['rl'])} rows: the reward saw the answers {seen}")


def check_llamafactory(out: Path, scratch: str) -> None:
    parser, converter, plugins = (_bare_import(name) for name in ("parser", "converter", "mm_plugin"))
    folder = out / "sharegpt"
    arguments = SimpleNamespace(
        media_dir=str(folder), streaming=False, preprocessing_num_workers=None, overwrite_cache=True
    )
    plugin = plugins.get_mm_plugin(name="qwen3_vl", image_token="<|image_pad|>", video_token="<|video_pad|>")
    for attributes in parser.get_dataset_list(["prism_sft", "prism_alignment"], str(folder)):
        file = str(folder / attributes.dataset_name)
        rows = load_dataset("json", data_files=file, split="train", cache_dir=scratch)
        aligned = converter.align_dataset(rows, attributes, arguments, SimpleNamespace(local_process_index=0))
        for row in aligned:
            assert row["_prompt"] and row["_response"], "LLaMA-Factory leaves out a row that it finds broken"
            images = row["_images"] or []
            assert "".join(turn["content"] for turn in row["_prompt"]).count("<image>") == len(images)
            plugin._regularize_images(images, image_max_pixels=2**24, image_min_pixels=16)
        print(f"LLaMA-Factory, {attributes.dataset_name}: {len(aligned)} rows")


def _bare_import(module: str) -> Any:
    if "llamafactory" not in sys.modules:
        spec = importlib.util.find_spec("llamafactory")
        assert spec is not None and spec.origin is not None, "LLaMA-Factory is not installed"
        root = Path(spec.origin).parent
        for name in ("llamafactory", "llamafactory.data", "llamafactory.extras"):
            package = ModuleType(name)
            package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
            sys.modules[name] = package
        sys.modules.setdefault("torchaudio", ModuleType("torchaudio"))
    return importlib.import_module(f"llamafactory.data.{module}")


if __name__ == "__main__":
    checks = {"trl": check_trl, "llamafactory": check_llamafactory}
    with tempfile.TemporaryDirectory() as directory:
        checks[sys.argv[1]](Path(sys.argv[2]), directory)
