"""Do the two views pull a discriminator's weights in different directions, and do they use different experts?

    python benchmarks/views_apart.py ABLATION/cells/full/seed-0 ABLATION/cells/dense/seed-0

Of every run the discriminator after the warm-up and after alignment, on scenes of the dev split with one rollout each
of the policy it then meets. Printed are the accuracy of each view; the cosine between the gradients of the two views'
losses over all language weights, over those of the MLPs or experts, and over attention (below 0 one view undoes what
the other learns, and weights of their own could help; experts of their own have 0); how unlike the views are routed
(Jensen-Shannon divergence, from 0 to 1 bit); and how far the experts lie apart (the distance of each from their mean,
over the mean's length).
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from prism.data.world.datasets import DEV, FAITHFUL, demonstrations
from prism.models import Discriminator, PromptEncoder, checkpoint_weights, load_policy
from prism.records import Demonstration
from prism.rewards import parse_response
from prism.rollout.sampling import Sampling
from prism.rollout.transformers_engine import TransformersEngine
from prism.stages.game import game_loss, game_metrics, measure_routing
from prism.stages.scoring import Contest, ContestBatch, ContestScores, score, score_and_backpropagate

NUM_SCENES, TOKEN_BUDGET, MAX_TOKENS = 96, 640, 240
PARTS: dict[str, Callable[[str], bool]] = {
    "all": lambda name: True,
    "mlp": lambda name: ".mlp." in name,
    "attention": lambda name: ".self_attn." in name,
}


def rollouts_of(policy_directory: Path) -> list[Contest]:
    """The teacher's description and reasoning of every scene against one valid rollout of the policy."""
    examples = list(demonstrations("apart", DEV, FAITHFUL, NUM_SCENES, seed=0))
    taught = [Demonstration(example.prompt, parse_response(example.completion)) for example in examples]
    policy, encoder = load_policy(policy_directory), PromptEncoder.from_pretrained(policy_directory)
    engine = TransformersEngine(policy, encoder, batch_size=NUM_SCENES)
    engine.update_weights(checkpoint_weights(policy))
    groups = engine.generate(
        [each.prompt for each in taught], num_samples=1, sampling=Sampling(1.0, MAX_TOKENS), seed=0
    )
    students = [parse_response(group.rollouts[0].text) for group in groups]
    return [
        Contest(each.prompt, each.response, (student,))
        for each, student in zip(taught, students, strict=True)
        if student.is_valid
    ]


def view_gradients(discriminator: Discriminator, batch: ContestBatch) -> list[dict[str, Tensor]]:
    """Of each view's loss by itself, for every language weight."""
    found = []
    for view in batch.view_names:
        discriminator.zero_grad()
        score_and_backpropagate(
            discriminator,
            batch,
            lambda pairs, view=view: game_loss(ContestScores({view: pairs.views[view]}, pairs.is_valid)).loss,
        )
        found.append(
            {
                name: weight.grad.flatten().clone()
                for name, weight in discriminator.named_parameters()
                if weight.grad is not None and "language_model.layers" in name
            }
        )
    return found


def cosine(first: dict[str, Tensor], second: dict[str, Tensor], is_part: Callable[[str], bool]) -> float:
    names = [name for name in first if is_part(name)]
    a, b = (torch.cat([each[name] for name in names]) for each in (first, second))
    return float(nn.functional.cosine_similarity(a, b, dim=0))


def expert_distance(discriminator: Discriminator) -> float | None:
    """Mean over layers and matrices; None without experts."""
    stacks = [weight.detach() for name, weight in discriminator.named_parameters() if ".experts." in name]
    spread = [(stack - stack.mean(0)).norm() / stack.mean(0).norm() / len(stack) ** 0.5 for stack in stacks]
    return float(torch.stack(spread).mean()) if spread else None


def describe(label: str, discriminator: Discriminator, encoder: PromptEncoder, contests: list[Contest]) -> str:
    batch = ContestBatch(encoder, contests, TOKEN_BUDGET, discriminator.mode)
    perception, reasoning = view_gradients(discriminator, batch)
    measured = game_metrics(batch.pair_scores(score(discriminator, batch)))
    accuracies = "  ".join(f"{view} {measured[f'accuracy/{view}']:5.1%}" for view in batch.view_names)
    cosines = "  ".join(f"{part} {cosine(perception, reasoning, test):+.3f}" for part, test in PARTS.items())
    line = f"{label}: right: {accuracies}; cosine: {cosines}"
    routing, distance = measure_routing(discriminator, batch.packs, batch), expert_distance(discriminator)
    if routing is not None:
        line += f"; divergence {float(routing.divergence.mean()):.4f}; experts apart {distance:.3f}"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN/seed-N")
    torch.set_num_threads(1)
    for run in parser.parse_args().runs:
        for policy, place in (("sft", "warmup/model"), ("align", "align/discriminator")):
            contests = rollouts_of(run / policy / "model")
            discriminator = Discriminator.from_pretrained(run / place)
            encoder = PromptEncoder.from_pretrained(run / place)
            print(describe(f"{run.parent.name} {run.name}, {place}", discriminator, encoder, contests), flush=True)


if __name__ == "__main__":
    main()
