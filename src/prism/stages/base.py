"""The model everything starts from: a checkpoint, the shipped tiny base, or a tiny base pretrained here."""

from collections.abc import MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from prism.config import CheckpointBase, PlannedStage, PretrainConfig, TinyBase
from prism.data.world.lessons import CURRICULUM, Lesson, draw_lesson, tokenizer_texts
from prism.models import PromptEncoder
from prism.models.tiny import build_tiny, tiny_config, tiny_encoder, train_tokenizer
from prism.objectives import completion_nll
from prism.packing import Branch, PackedTrees
from prism.packing.forward import packed_hidden
from prism.records import Example
from prism.runtime.distributed import add_up_number
from prism.runtime.optimizer import descend, make_muon, make_schedule
from prism.runtime.progress import make_console, say
from prism.runtime.seeding import derive_seed, python_random
from prism.runtime.stage import StageRun
from prism.stages.imitation import example_branch, imitate, num_tokens, pack_examples
from prism.stages.shares import share_packs
from prism.stages.workspace import Workspace

SMOOTHING = 50
"""Steps over which the loss of a part of the curriculum is averaged; a part has twice as many at least."""

LAST_SHARE = 0.4
"""Of the steps; as many as those over which a `wsd` schedule decays."""


def run(workspace: Workspace, planned: PlannedStage) -> None:
    base = workspace.recipe.base
    if isinstance(base, TinyBase) and base.source == "pretrain":
        _pretrain(workspace, planned, base.pretrain)
    else:
        _adopt(workspace, planned, base)


def _adopt(workspace: Workspace, planned: PlannedStage, base: TinyBase | CheckpointBase) -> None:
    """Nothing to train: the manifest records which weights the run starts from."""
    directory = workspace.model_directory("base")
    run = StageRun(
        workspace.stage_directory(planned.name),
        name=planned.name,
        kind=planned.kind,
        config=base.model_dump(mode="json"),
        inputs={"model": directory},
        num_steps=0,
        checkpoint_every=1,
        seed=workspace.seed,
    )
    if not run.is_complete:
        run.finish({})


def _pretrain(workspace: Workspace, planned: PlannedStage, config: PretrainConfig) -> None:
    """Teaches a randomly initialised tiny model the lessons of the built-in world."""
    run = workspace.open_stage(
        planned, [config], num_steps=config.num_steps, checkpoint_every=config.checkpoint_every, show=("loss/nll",)
    )
    if run.is_complete:
        return
    encoder = tiny_encoder(train_tokenizer(tokenizer_texts()))
    policy = build_tiny(tiny_config(encoder.tokenizer), seed=derive_seed(workspace.seed, "tiny"))
    muon, adamw = make_muon(
        policy,
        learning_rate=config.muon_learning_rate,
        weight_decay=config.weight_decay,
        rest_learning_rate=config.learning_rate,
    )
    optimizers: dict[str, Optimizer] = {"muon": muon, "adamw": adamw}
    schedules = {
        name: make_schedule(
            optimizer, kind=config.schedule, num_steps=config.num_steps, warmup_fraction=config.warmup_fraction
        )
        for name, optimizer in optimizers.items()
    }
    progress: dict[str, Any] = {"part": 0, "num_steps": 0, "total": 0, "loss": None}
    run.attach(modules={"policy": policy}, optimizers=optimizers, schedulers=schedules, state=progress)
    for step in run.steps():
        random_source, part = python_random(workspace.seed, "lessons", step), progress["part"]
        lessons = [draw_lesson(random_source, part) for _ in range(config.batch_size)]
        packs = pack_lessons(encoder, lessons, config.token_budget)
        loss = imitate_early(policy, packs) if CURRICULUM[part].has_early_exit else imitate(policy, packs)
        grad_norm = descend(policy, (muon, adamw), config.max_grad_norm, name="policy", step=step)
        for schedule in schedules.values():
            schedule.step()
        advance(progress, loss, config.num_steps)
        metrics = {"loss/nll": loss, "policy/grad_norm": grad_norm, "curriculum/part": part}
        run.record(step, metrics, tokens=num_tokens(packs))
    workspace.save_models(run, {"model": policy}, encoder)


def imitate_early(policy: Any, packs: Sequence[PackedTrees]) -> float:
    """As `imitate`, with as much weight on what the model would say after half of its layers.

    So perception is done by then (an early exit, as in LayerSkip), comparing soon after, and later layers can gather
    what was found: of what the last layer finds nothing further can be made. Models with dozens of layers have them to
    spare, this one has not.
    """
    num_targets = sum(packed.target_ids.numel() for packed in packs)
    half = policy.config.get_text_config().num_hidden_layers // 2
    total = 0.0
    for part in share_packs(packs):
        last, output = packed_hidden(policy.model, part.item, output_hidden_states=True)
        early = policy.model.language_model.norm(output.hidden_states[half][0])
        losses = [_nll(policy, hidden, part.item, num_targets) for hidden in (last, early)]
        (part.weight * (losses[0] + losses[1])).backward()
        total += part.weight * losses[0].item()
    return add_up_number(total)


def _nll(policy: Any, hidden: Tensor, packed: PackedTrees, num_targets: int) -> Tensor:
    logprobs = policy.lm_head(hidden[packed.target_positions]).log_softmax(-1)
    chosen = logprobs.gather(-1, packed.target_ids[:, None]).T
    return completion_nll(chosen, torch.ones_like(chosen, dtype=torch.bool), num_targets)


def advance(progress: MutableMapping[str, Any], loss: float, num_steps: int) -> None:
    """Takes in the loss of a step of a pretraining of `num_steps`; goes on to the next part where this one is over.

    The last part has `LAST_SHARE` of the steps at least: where the others are not mastered by then, they are left.
    """
    last = len(CURRICULUM) - 1
    if progress["part"] == last:
        return
    mean = loss if progress["loss"] is None else progress["loss"] + (loss - progress["loss"]) / SMOOTHING
    progress.update(num_steps=progress["num_steps"] + 1, total=progress["total"] + 1, loss=mean)
    if mean < CURRICULUM[progress["part"]].mastered_at and progress["num_steps"] >= 2 * SMOOTHING:
        progress.update(part=progress["part"] + 1, num_steps=0, loss=None)
    elif progress["total"] >= num_steps - round(LAST_SHARE * num_steps):
        say(
            make_console(),
            f"base: part {progress['part'] + 1} of the lessons is left unmastered, at a loss of {mean:.3f}",
        )
        progress.update(part=last)


def pack_lessons(encoder: PromptEncoder, lessons: Sequence[Example], token_budget: int) -> list[PackedTrees]:
    """As `pack_examples`; the verdict of a `Lesson` stands behind its end token."""
    return pack_examples(encoder, lessons, token_budget, _lesson_branch)


def _lesson_branch(encoder: PromptEncoder, lesson: Example) -> Branch:
    if not isinstance(lesson, Lesson) or not lesson.verdict:
        return example_branch(encoder, lesson)
    judged = encoder.completion_ids(lesson.completion)
    verdict = encoder.completion_ids(lesson.verdict)[:-1]
    mask = [False] * len(judged) + [True] * len(verdict)
    return Branch(torch.tensor(judged + verdict), torch.tensor(mask))
