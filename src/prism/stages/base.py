"""The model everything starts from: a checkpoint, the shipped tiny base, or a tiny base pretrained here."""

from collections.abc import Sequence

import torch
from torch.optim import Optimizer

from prism.config import CheckpointBase, PlannedStage, PretrainConfig, TinyBase
from prism.data.world.lessons import Lesson, draw_lesson, tokenizer_texts
from prism.models import PromptEncoder
from prism.models.tiny import build_tiny, tiny_config, tiny_encoder, train_tokenizer
from prism.packing import Branch, PackedTrees
from prism.records import Example
from prism.runtime.optimizer import descend, make_muon, make_schedule
from prism.runtime.seeding import derive_seed, python_random
from prism.runtime.stage import StageRun
from prism.stages.imitation import example_branch, imitate, num_tokens, pack_examples
from prism.stages.workspace import Workspace


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
    run.attach(modules={"policy": policy}, optimizers=optimizers, schedulers=schedules)
    for step in run.steps():
        random_source = python_random(workspace.seed, "lessons", step)
        lessons = [draw_lesson(random_source, progress=step / config.num_steps) for _ in range(config.batch_size)]
        packs = pack_lessons(encoder, lessons, config.token_budget)
        loss = imitate(policy, packs)
        grad_norm = descend(policy, (muon, adamw), config.max_grad_norm, name="policy", step=step)
        for schedule in schedules.values():
            schedule.step()
        run.record(step, {"loss/nll": loss, "policy/grad_norm": grad_norm}, tokens=num_tokens(packs))
    workspace.save_models(run, {"model": policy}, encoder)


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
