"""Sampling a group of completions per prompt: our decoding loop against `generate` of transformers.

    python benchmarks/rollouts.py [--prompts 8] [--group-size 8] [--max-tokens 128] [--pairs 5]
    python benchmarks/rollouts.py --image-tokens 576 --prompts 1 --group-size 16 …

Both sample the same number of tokens from the same model at temperature 1, in one process, in turn; the end token is
forbidden, so that every sample has `--max-tokens` tokens. `generate` is given `num_return_sequences`, as trainers use
it. The model is the shipped tiny base and prompts are its world's; with `--image-tokens` it is one in the proportions
of Qwen3-VL-4B with random weights, and prompts have an image of so many tokens.
"""

import argparse
from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from side_by_side import Writer, make_encoder, make_policy, memory_growth, parse_arguments, run_pairs

from prism.data.world.datasets import FAITHFUL, ROLLOUT, demonstrations
from prism.models import PromptEncoder, load_policy
from prism.records import Prompt
from prism.rollout.sampling import Sampling
from prism.rollout.transformers_engine import TransformersEngine
from prism.stages.workspace import SHIPPED_BASE


def build(arguments: argparse.Namespace) -> tuple[Any, PromptEncoder, list[Prompt]]:
    if arguments.image_tokens:
        encoder = make_encoder()
        policy, writer = make_policy(encoder), Writer(encoder)
        prompts = [writer.prompt(f"p{number}", arguments.image_tokens) for number in range(arguments.prompts)]
    else:
        policy, encoder = load_policy(SHIPPED_BASE), PromptEncoder.from_pretrained(SHIPPED_BASE)
        prompts = [example.prompt for example in demonstrations("bench", ROLLOUT, FAITHFUL, arguments.prompts, 0)]
    encoder.banned_token_ids = tuple(sorted({*encoder.banned_token_ids, encoder.end_token_id}))
    return policy.eval(), encoder, prompts


def our_sampling(arguments: argparse.Namespace) -> Callable[[], object]:
    policy, encoder, prompts = build(arguments)
    engine = TransformersEngine(policy, encoder, batch_size=arguments.prompts * arguments.group_size)
    sampling, seeds = Sampling(1.0, arguments.max_tokens), count()
    return lambda: engine.generate(prompts, num_samples=arguments.group_size, sampling=sampling, seed=next(seeds))


def their_sampling(arguments: argparse.Namespace) -> Callable[[], object]:
    """Left-padded batch through `generate`, as a trainer on transformers would."""
    policy, encoder, prompts = build(arguments)

    def sample() -> None:
        encoded = [encoder.encode(prompt) for prompt in prompts]
        longest = max(map(len, encoded))
        input_ids = torch.zeros(len(encoded), longest, dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids)
        for row, prompt in enumerate(encoded):
            input_ids[row, longest - len(prompt) :] = prompt.token_ids
            attention_mask[row, longest - len(prompt) :] = 1
        policy.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            mm_token_type_ids=(input_ids == encoder.image_token_id).int(),
            pixel_values=torch.cat([p.pixel_values for p in encoded if p.pixel_values is not None]),
            image_grid_thw=torch.cat([p.image_grid_thw for p in encoded if p.image_grid_thw is not None]),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            num_return_sequences=arguments.group_size,
            max_new_tokens=arguments.max_tokens,
            suppress_tokens=list(encoder.banned_token_ids),
            pad_token_id=0,
        )

    return sample


def main() -> None:
    sizes = {"prompts": 8, "group_size": 8, "max_tokens": 128, "image_tokens": 0, "pairs": 5}
    arguments = parse_arguments(__doc__, **sizes)
    pairs = run_pairs(our_sampling(arguments), their_sampling(arguments), arguments.pairs)
    print(pairs.describe("sampling"), flush=True)
    own, theirs = memory_growth(our_sampling, arguments), memory_growth(their_sampling, arguments)
    print(f"peak memory: ours {own:.0f} MiB, generate {theirs:.0f} MiB")


if __name__ == "__main__":
    main()
