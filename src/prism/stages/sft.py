"""Supervised fine-tuning on demonstrations, the second time on those that alignment has: the loss is on the completion
only."""

import math
from functools import cache, partial

from prism.config import IMITATED, PlannedStage, SftConfig
from prism.errors import ConfigError
from prism.runtime.optimizer import descend, make_optimizer, make_schedule
from prism.stages.datasets import read_alignment_examples, read_development, read_sft
from prism.stages.imitation import draw_batch, imitate, mean_nll, num_tokens, pack_examples
from prism.stages.workspace import Workspace


def run(workspace: Workspace, planned: PlannedStage) -> None:
    config: SftConfig | None = getattr(workspace.recipe, planned.kind)
    if config is None:
        raise ConfigError(f"{planned.name}: the recipe has no [{planned.kind}] table")
    imitated = IMITATED[planned.kind]
    read_examples = read_sft if imitated == "sft" else read_alignment_examples
    read = cache(partial(read_examples, workspace, config.max_response_tokens))
    run = workspace.open_stage(
        planned,
        [config],
        num_steps=config.num_steps or (lambda: _num_steps(config, len(read()))),
        checkpoint_every=config.checkpoint_every,
        data=(imitated, "dev"),
        show=("loss/nll", "loss/dev_nll"),
    )
    if run.is_complete:
        return
    examples, development = read(), read_development(workspace, config.max_response_tokens)
    policy, encoder = workspace.load_policy_to_train(planned.start)
    optimizer = make_optimizer(policy, learning_rate=config.learning_rate, weight_decay=config.weight_decay)
    schedule = make_schedule(
        optimizer, kind=config.schedule, num_steps=run.num_steps, warmup_fraction=config.warmup_fraction
    )
    run.attach(modules={"policy": policy}, optimizers={"policy": optimizer}, schedulers={"policy": schedule})
    for step in run.steps():
        batch = draw_batch(examples, (step - 1) * config.batch_size, config.batch_size, workspace.seed, planned.kind)
        packs = pack_examples(encoder, batch, config.token_budget)
        loss = imitate(policy, packs)
        grad_norm = descend(policy, optimizer, config.max_grad_norm, name="policy", step=step)
        schedule.step()
        metrics: dict[str, float | None] = {"loss/nll": loss, "policy/grad_norm": grad_norm}
        if development and (step % 25 == 0 or step == run.num_steps):
            metrics["loss/dev_nll"] = mean_nll(policy, pack_examples(encoder, development, config.token_budget))
        run.record(step, metrics, tokens=num_tokens(packs))
    workspace.save_models(run, {"model": policy}, encoder)


def _num_steps(config: SftConfig, num_examples: int) -> int:
    return math.ceil((config.num_epochs or 1) * num_examples / config.batch_size)
