"""Where one seed's pipeline keeps its things: data, stages, models."""

import hashlib
import importlib.resources
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from prism.config import CheckpointBase, CopyRollout, PlannedStage, Recipe
from prism.data.image_references import image_suffix
from prism.data.images import read_bytes
from prism.errors import CheckpointError
from prism.models import Discriminator, PromptEncoder, load_policy, save_policy
from prism.models.adapters import add_adapters, has_adapters, merge_adapters, save_adapters
from prism.models.device import own_device
from prism.models.sharding import shard, whole_weights
from prism.packing.attention import use_flex_attention
from prism.records import Prompt
from prism.runtime.atomic import atomic_directory, write_bytes
from prism.runtime.launch import is_first
from prism.runtime.manifest import read_manifest
from prism.runtime.progress import make_console
from prism.runtime.seeding import derive_small_seed
from prism.runtime.stage import StageRun

CONSOLE = make_console()
Module = TypeVar("Module", bound=nn.Module)
TRAINING = ("sft", "second_sft", "warmup", "align", "rlvr")
SHIPPED_BASE = Path(str(importlib.resources.files("prism") / "assets" / "tiny-base"))


@dataclass(frozen=True, slots=True)
class Workspace:
    """One seed of one recipe: `directory` holds a folder per stage and `data`."""

    recipe: Recipe
    seed: int
    directory: Path

    def stage_directory(self, stage: str) -> Path:
        path = self.directory / stage
        # In an ablation a stage is a link: what is set aside or made anew is what it points to.
        return path.resolve() if path.is_symlink() else path

    def model_directory(self, stage: str) -> Path:
        """Where the weights are that `stage` ends with."""
        if stage == "base":
            base = self.recipe.base
            if isinstance(base, CheckpointBase):
                return base.path
            if base.source != "pretrain":
                return base.kept_directory(self.seed) or SHIPPED_BASE
        return self.stage_directory(stage) / "model"

    def input_hash(self, stage: str, output: str = "model") -> str | None:
        """sha256 of what `stage` put out or, like the data stage, took over from outside; None where there
        is no such thing. Raises CheckpointError unless the stage is complete."""
        manifest = read_manifest(self.stage_directory(stage))
        if manifest is None or manifest["status"] != "complete":
            raise CheckpointError(
                f"{self.stage_directory(stage)}: stage {stage!r} is not complete; run it first with "
                f"`prism run` or by its own command"
            )
        recorded = manifest["outputs"].get(output)
        return manifest["inputs"].get(output) if recorded is None else recorded["sha256"]

    def open_stage(
        self,
        planned: PlannedStage,
        config: Sequence[BaseModel | None],
        *,
        num_steps: int | Callable[[], int],
        checkpoint_every: int = 100,
        data: Sequence[str] = (),
        directories: Mapping[str, Path] | None = None,
        show: Sequence[str] = (),
    ) -> StageRun:
        """The stage's run. Its identity is `config`, the models it starts from, the `data` files it reads
        and the content of `directories` from outside the run. `num_steps` may be a function, as in `StageRun`."""
        hashes = {stage: self.input_hash(stage) for stage in planned.inputs}
        hashes |= {f"data/{name}": self.input_hash("data", name) for name in data}
        # A data set that the user's recipe does not name, such as development data, has no hash.
        inputs: dict[str, str | Path] = {name: sha256 for name, sha256 in hashes.items() if sha256 is not None}
        inputs |= directories or {}
        settings: dict[str, Any] = {
            type(part).__name__: part.model_dump(mode="json", exclude={"checkpoint_every"})
            for part in config
            if part is not None
        }
        settings |= self.training_settings(planned.kind)
        return StageRun(
            self.stage_directory(planned.name),
            name=planned.name,
            kind=planned.kind,
            config=settings | {"start": planned.start, "max_prompt_tokens": self.recipe.max_prompt_tokens},
            inputs=inputs,
            num_steps=num_steps,
            checkpoint_every=checkpoint_every,
            seed=self.seed,
            show=show,
        )

    def training_settings(self, kind: str) -> dict[str, Any]:
        """What of the recipe's common tables the results of a stage of `kind` depend on."""
        lora = self.recipe.lora
        settings: dict[str, Any] = {}
        if lora is not None and kind in TRAINING:
            settings["LoraConfig"] = lora.model_dump(mode="json")
        return settings | self.model_settings

    @property
    def model_settings(self) -> dict[str, Any]:
        """What the results of every stage that has a model depend on; nothing of what is so by default."""
        settings: dict[str, Any] = {}
        if self.recipe.precision != "float32":
            settings["precision"] = self.recipe.precision
        if self.recipe.max_pixels is not None:
            settings["max_pixels"] = self.recipe.max_pixels
        return settings

    def to_train(self, model: Module, player: Literal["policy", "discriminator"]) -> Module:
        """`model`, whole, as the stages train it: on this process's device, without kept activations where the recipe
        says so, and with its weights spread over the processes, or with adapters, which are so small that every
        process has them. What adapters leave as it is may be rounded for good."""
        lora, precision = self.recipe.lora, self.recipe.precision
        body = self._read_trees(model)
        if self.recipe.activation_checkpointing:
            body.gradient_checkpointing_enable({"use_reentrant": False})
        if lora is None or not getattr(lora, player):
            return shard(model, precision, fsdp_size=self.recipe.fsdp_size)
        seed = derive_small_seed(self.seed, "lora", player)
        self._round(body)
        add_adapters(body, rank=lora.rank, alpha=lora.alpha, seed=seed)
        return model.to(own_device())

    def to_use(self, model: Module) -> Module:
        """`model`, whole, where it does not train: on this process's device, in the recipe's precision."""
        self._read_trees(model)
        return self._round(model).to(own_device())

    def _round(self, model: Module) -> Module:
        """Weights alone: rotary frequencies are buffers, and rounded ones turn distant tokens by wrong angles."""
        if self.recipe.precision == "bfloat16":
            for weights in model.parameters():
                weights.data = weights.data.to(torch.bfloat16)
        return model

    def _read_trees(self, model: nn.Module) -> Any:
        """The Hugging Face model in `model`, with the recipe's attention over packed sequences."""
        body: Any = model.model if isinstance(model, Discriminator) else model
        if self.recipe.attention == "flex":
            use_flex_attention(body)
        return body

    @property
    def sampling_settings(self) -> list[BaseModel]:
        """What of the rollout settings the results of a stage that samples depend on: nothing where the training
        model samples, and nothing that is only about memory or when to stop."""
        rollout = self.recipe.rollout
        if not isinstance(rollout, CopyRollout):
            return []
        read = {"type", "base_urls", "dtype", "eager", "importance", "max_images"}
        return [type(rollout).model_validate(rollout.model_dump(include=read))]

    def load_encoder(self, stage: str) -> PromptEncoder:
        return PromptEncoder.from_pretrained(self.model_directory(stage), max_pixels=self.recipe.max_pixels)

    def load_policy(self, stage: str) -> tuple[Any, PromptEncoder]:
        """The policy that `stage` ended with, for use as it is, and its encoder."""
        return self.to_use(load_policy(self.model_directory(stage))), self.load_encoder(stage)

    def load_policy_to_train(self, stage: str) -> tuple[Any, PromptEncoder]:
        """The policy that `stage` ended with, in training mode, and its encoder."""
        policy = load_policy(self.model_directory(stage)).train()
        return self.to_train(policy, "policy"), self.load_encoder(stage)

    def load_reference(self, stage: str) -> Any:
        """The policy that `stage` ended with, spread over the processes as one that trains is."""
        reference = load_policy(self.model_directory(stage))
        self._read_trees(reference)
        return shard(reference, self.recipe.precision, fsdp_size=self.recipe.fsdp_size)

    def keep_image(self, prompt: Prompt) -> str | None:
        """Copies the prompt's first image below the run; its path relative to the run, None without images."""
        if not prompt.images:
            return None
        data = read_bytes(prompt.images[0])
        name = hashlib.sha256(data).hexdigest()[:16] + (image_suffix(data) or "")
        path = self.directory / "images" / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, data)
        return path.relative_to(self.recipe.run_directory).as_posix()

    def save_models(self, run: StageRun, models: Mapping[str, nn.Module], encoder: PromptEncoder) -> None:
        """Writes the final weights of `models`, each with its processor to the directory of its name, and marks the
        stage complete. Adapters are merged, and written by themselves as well; a model that had some is used up."""
        outputs = list(models)
        for name, model in models.items():
            if has_adapters(model):
                outputs.append(f"{name}-adapter")
                if is_first():
                    _write_adapted(model, encoder, run.directory, name)
                continue
            weights = whole_weights(model, is_kept=is_first())
            if is_first():
                with atomic_directory(run.directory / name) as path:
                    _write(model, encoder, path, weights)
        run.finish({name: name for name in outputs})


def _write_adapted(model: nn.Module, encoder: PromptEncoder, directory: Path, name: str) -> None:
    with atomic_directory(directory / f"{name}-adapter") as path:
        save_adapters(model, path)
    merge_adapters(model)
    with atomic_directory(directory / name) as path:
        _write(model, encoder, path, None)
    # The host has to have room for one merged model, not for all of them.
    model.to("meta")


def _write(model: Any, encoder: PromptEncoder, path: Path, weights: dict[str, Tensor] | None) -> None:
    if isinstance(model, Discriminator):
        model.save_pretrained(path, state_dict=weights)
        encoder.save_pretrained(path)
    else:
        save_policy(model, encoder, path, state_dict=weights)
