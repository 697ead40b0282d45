"""Sampling a group of completions per prompt: our decoding loop against `generate` of transformers.

    python benchmarks/rollouts.py [CHECKPOINT] [--prompts 8] [--group-size 8] [--max-tokens 128] [--runs 5]

Both sample the same number of tokens from the same model at temperature 1, in one process, in turn;
the end token is forbidden, so that every sample has `--max-tokens` tokens. `generate` is given
`num_return_sequences`, as trainers use it. Prints the median seconds of each and the median of the
paired ratios.
"""

import argparse
import platform
import statistics
import time
from pathlib import Path

import torch
import transformers

from prism.data.world.datasets import FAITHFUL, ROLLOUT, demonstrations
from prism.models import PromptEncoder, load_policy
from prism.records import Prompt
from prism.rollout.sampling import Sampling
from prism.rollout.transformers_engine import TransformersEngine
from prism.runtime.threads import choose_threads
from prism.stages.workspace import SHIPPED_BASE


class Endless(PromptEncoder):
    """An encoder that also bans the end token, so that both sides decode the same number of tokens."""

    def forbid_end(self) -> None:
        self.banned_token_ids = tuple(sorted({*self.banned_token_ids, self.end_token_id}))


def time_ours(engine: TransformersEngine, prompts: list[Prompt], group_size: int, max_tokens: int, seed: int) -> float:
    started = time.perf_counter()
    engine.generate(prompts, num_samples=group_size, sampling=Sampling(1.0, max_tokens), seed=seed)
    return time.perf_counter() - started


@torch.no_grad()
def time_generate(
    policy, encoder: Endless, prompts: list[Prompt], group_size: int, max_tokens: int, seed: int
) -> float:
    """Left-padded batch through `generate`, as a trainer on transformers would."""
    torch.manual_seed(seed)
    started = time.perf_counter()
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
        num_return_sequences=group_size,
        max_new_tokens=max_tokens,
        suppress_tokens=list(encoder.banned_token_ids),
        pad_token_id=0,
    )
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="?", default=SHIPPED_BASE)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    threads = choose_threads()
    policy, encoder = load_policy(arguments.checkpoint), Endless.from_pretrained(arguments.checkpoint)
    encoder.forbid_end()
    engine = TransformersEngine(policy, encoder, batch_size=arguments.prompts * arguments.group_size)
    prompts = [example.prompt for example in demonstrations("bench", ROLLOUT, FAITHFUL, arguments.prompts, 0)]
    size = (prompts, arguments.group_size, arguments.max_tokens)
    time_ours(engine, *size, 0)
    time_generate(policy, encoder, *size, 0)
    pairs = [
        (time_ours(engine, *size, run), time_generate(policy, encoder, *size, run)) for run in range(arguments.runs)
    ]
    ours, theirs = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    ratio = statistics.median(theirs / ours for ours, theirs in pairs)
    print(f"{platform.processor() or platform.machine()}, {threads.num_threads} thread(s)")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    print(f"{arguments.prompts} prompts × {arguments.group_size} samples × {arguments.max_tokens} tokens")
    print(f"ours {ours:.2f} s, generate {theirs:.2f} s, generate/ours {ratio:.2f} (median of {arguments.runs} pairs)")


if __name__ == "__main__":
    main()
