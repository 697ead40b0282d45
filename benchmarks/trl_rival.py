"""TRL's trainers, set up as their users would on a CPU, and timed step by step.

TRL is no dependency of the package. It has to be installed beside it, into an environment of its own:

    python -m venv .venv-trl
    .venv-trl/bin/pip install -e . "trl==1.16.0"

Float32 (`bf16` off), no gradient checkpointing (neither have we), no reference model, no logging to a service. For
data with images TRL has neither packing nor training without padding: SFTTrainer refuses both, GRPOTrainer has
neither. Liger's and Triton's kernels need a GPU.
"""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from tempfile import mkdtemp
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
from side_by_side import clock
from transformers import Qwen3VLForConditionalGeneration, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from prism.models import PromptEncoder
from prism.records import Example, Prompt, RolloutGroup

COMMON: Mapping[str, Any] = {
    "bf16": False,
    "use_cpu": True,
    "gradient_checkpointing": False,
    "report_to": "none",
    "save_strategy": "no",
    "logging_strategy": "no",
    "disable_tqdm": True,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 1.0,
    "weight_decay": 0.01,
    "learning_rate": 1e-6,
    "dataloader_pin_memory": False,
}


def image_of(prompt: Prompt) -> Image.Image:
    [source] = prompt.images
    assert source.data is not None
    return Image.open(BytesIO(source.data))


class BeforeFirstStep(TrainerCallback):
    """Calls `compare` once, when the first gradient is there and the optimizer has not taken it yet."""

    def __init__(self, compare: Callable[[], None]) -> None:
        self._compare = compare
        self._is_done = False

    def on_pre_optimizer_step(self, *arguments: Any, **named: Any) -> None:
        if not self._is_done:
            self._is_done = True
            self._compare()


class AddsLosses:
    """For a trainer: adds up the losses of its micro-batches."""

    step_loss = 0.0

    def training_step(self, *arguments: Any, **named: Any) -> torch.Tensor:
        loss = super().training_step(*arguments, **named)  # type: ignore[misc]
        self.step_loss += float(loss)
        return loss


class TimedGrpoTrainer(AddsLosses, GRPOTrainer):
    """Knows the seconds that its last step spent on completions and rewards, and on all else, the update."""

    prepare_seconds = 0.0

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        started = clock()
        output = super()._generate_and_score_completions(inputs)
        self.prepare_seconds = clock() - started
        return output


def make_grpo_trainer(
    policy: Qwen3VLForConditionalGeneration,
    encoder: PromptEncoder,
    prompts: Sequence[Prompt],
    rollouts: Callable[[Sequence[Prompt]], Sequence[RolloutGroup]],
    rewards: Callable[..., list[float]],
    *,
    group_size: int,
    prompts_per_step: int,
    micro_batch: int,
    num_steps: int,
) -> TimedGrpoTrainer:
    """One optimizer step per generation, GRPO's loss, `rollouts` in place of `generate`."""
    by_question = {prompt.question: prompt for prompt in prompts}

    def rollout_func(messages: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        # Every prompt comes once per completion.
        groups = rollouts([by_question[message[-1]["content"][-1]["text"]] for message in messages[::group_size]])
        return {
            "prompt_ids": [encoder.encode(g.prompt).token_ids.tolist() for g in groups for _ in g.rollouts],
            "completion_ids": [list(rollout.token_ids) for group in groups for rollout in group.rollouts],
            "logprobs": None,
        }

    rows = {
        "prompt": [[{"role": "user", "content": prompt.question}] for prompt in prompts],
        "image": [image_of(prompt) for prompt in prompts],
    }
    config = GRPOConfig(
        output_dir=mkdtemp(),
        **COMMON,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=prompts_per_step * group_size // micro_batch,
        num_generations=group_size,
        max_steps=num_steps,
        shuffle_dataset=False,
        beta=0.0,
        loss_type="grpo",
        epsilon=0.2,
    )
    return TimedGrpoTrainer(
        model=policy,
        reward_funcs=rewards,
        args=config,
        train_dataset=Dataset.from_dict(rows),
        processing_class=encoder.processor,
        rollout_func=rollout_func,
    )


class TimedSftTrainer(AddsLosses, SFTTrainer):
    pass


def make_sft_trainer(
    policy: Qwen3VLForConditionalGeneration,
    encoder: PromptEncoder,
    examples: Sequence[Example],
    *,
    micro_batch: int,
    batch_size: int,
    num_steps: int,
) -> TimedSftTrainer:
    """Loss on the completions and their end token, examples in the order given."""
    end = encoder.tokenizer.eos_token
    rows = {
        "prompt": [rendered(encoder, example.prompt) for example in examples],
        "completion": [f"{example.completion}{end}" for example in examples],
        "image": [image_of(example.prompt) for example in examples],
    }
    config = SFTConfig(
        output_dir=mkdtemp(),
        **COMMON,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=batch_size // micro_batch,
        max_steps=num_steps,
        max_length=None,
        completion_only_loss=True,
        train_sampling_strategy="sequential",
    )
    return TimedSftTrainer(
        model=policy, args=config, train_dataset=Dataset.from_dict(rows), processing_class=encoder.processor
    )


def rendered(encoder: PromptEncoder, prompt: Prompt) -> str:
    """The prompt as the chat template writes it; conversations would give completions a newline after the end token."""
    content = [{"type": "image"}, {"type": "text", "text": prompt.question}]
    messages = [{"role": "user", "content": content}]
    text: Any = encoder.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text


class InTurn(TrainerCallback):
    """Runs our step after each of TRL's; `finished(full, update)` is told the seconds of TRL's.

    `full` goes from the end of our step to the end of TRL's, its data loading included; `update` leaves out what comes
    before the first micro-batch and what `prepared()` says.
    """

    def __init__(self, finished: Callable[[float, float], None], prepared: Callable[[], float] = lambda: 0.0) -> None:
        self._finished, self._prepared = finished, prepared
        self._resumed = self._began = 0.0

    def on_train_begin(self, *arguments: Any, **named: Any) -> None:
        self._resumed = clock()

    def on_step_begin(self, *arguments: Any, **named: Any) -> None:
        self._began = clock()

    def on_step_end(self, *arguments: Any, **named: Any) -> None:
        now = clock()
        self._finished(now - self._resumed, now - self._began - self._prepared())
        self._resumed = clock()
