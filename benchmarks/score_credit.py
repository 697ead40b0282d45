"""What a warmed-up discriminator's scores follow among the fine-tuned policy's rollouts of one prompt.

    python benchmarks/score_credit.py RUN/seed-2

of a run that has come as far as its warm-up. Eight rollouts to each of 24 scenes of the dev split: the metrics
`credit/…` that alignment records of its steps, how far scores of a prompt differ, and how many pairs are told apart.
"""

import argparse
from pathlib import Path

import torch

from prism.data.world.datasets import DEV, FAITHFUL, demonstrations
from prism.models import Discriminator, PromptEncoder
from prism.records import Demonstration
from prism.rewards import parse_response
from prism.rollout.sampling import Sampling
from prism.rollout.transformers_engine import TransformersEngine
from prism.stages.credit import credit_metrics, verdicts_of
from prism.stages.game import game_metrics
from prism.stages.round import make_contest
from prism.stages.scoring import ContestBatch, score

NUM_SCENES, GROUP_SIZE, MAX_TOKENS, TOKEN_BUDGET = 24, 8, 240, 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seed_directory", type=Path)
    directory = parser.parse_args().seed_directory
    torch.set_num_threads(1)
    engine = TransformersEngine.of_checkpoint(directory / "sft" / "model")
    judge = directory / "warmup" / "model"
    discriminator, encoder = Discriminator.from_pretrained(judge), PromptEncoder.from_pretrained(judge)
    teachers = [
        Demonstration(example.prompt, parse_response(example.completion))
        for example in demonstrations("credit", DEV, FAITHFUL, NUM_SCENES, seed=0)
    ]
    prompts = [teacher.prompt for teacher in teachers]
    groups = engine.generate(prompts, num_samples=GROUP_SIZE, sampling=Sampling(1.0, MAX_TOKENS), seed=1)
    contests = [make_contest(*pair) for pair in zip(teachers, groups, strict=True)]
    responses = [response for contest in contests for response in contest.students]
    batch = ContestBatch(encoder, contests, TOKEN_BUDGET, discriminator.mode)
    pairs = batch.pair_scores(score(discriminator, batch))
    measured = game_metrics(pairs) | credit_metrics(groups, responses, verdicts_of(groups, responses), pairs)
    is_valid = pairs.is_valid.view(NUM_SCENES, GROUP_SIZE)
    for view, scores in pairs.views.items():
        grouped = zip(scores.student.view(NUM_SCENES, GROUP_SIZE), is_valid, strict=True)
        spreads = [own[valid].std(correction=0) for own, valid in grouped if valid.any()]
        measured[f"spread/{view}"] = float(torch.stack(spreads).mean())
    for name, value in measured.items():
        print(f"{name:<26} {'–' if value is None else f'{value:.2f}'}")


if __name__ == "__main__":
    main()
