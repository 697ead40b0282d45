"""A few steps of fine-tuning in float64, by several processes, for test_distributed_checkpoints.py.

    python sharded_training.py

Every line it is given is an order, in JSON: `recipe`, `directory`, `num_processes`, `last_step`, `overrides`. So many
processes go on from the newest checkpoint in the directory and write one after the last step. RESULT then holds, all
whole, what training came to: weights, the last step's clipped gradients, and the weights that a copy was given to
sample with; METRICS the loss and the gradient norm of every step. The answer is a line with what each process ended
with: nothing, or its error.
"""

import json
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from double_precision import use_double_precision
from forking import fork_all
from safetensors.torch import save_file
from torch import Tensor

from prism.config import load_recipe
from prism.errors import StorageError
from prism.models import checkpoint_weights, load_policy
from prism.models.policy import take_weights
from prism.models.sharding import whole
from prism.runtime.checkpoint import load_latest, save_checkpoint
from prism.runtime.distributed import gather, num_processes, processes
from prism.runtime.launch import is_first, process_index
from prism.runtime.optimizer import clip_gradients, make_optimizer, make_schedule
from prism.stages import datasets
from prism.stages.imitation import draw_batch, imitate, pack_examples
from prism.stages.workspace import SHIPPED_BASE, Workspace

RESULT, METRICS, REFUSED = "result.safetensors", "metrics.json", "refused.json"
BATCH, TOKEN_BUDGET, MAX_RESPONSE, MAX_NORM = 5, 400, 240, 0.5


def whole_parts(policy: Any, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
    copy = load_policy(SHIPPED_BASE)
    take_weights(copy, checkpoint_weights(policy))
    found = {f"weight/{name}": whole(weight.detach()) for name, weight in policy.named_parameters()}
    found |= {f"gradient/{name}": gradient for name, gradient in gradients.items()}
    return found | {f"copy/{name}": weight.detach() for name, weight in copy.named_parameters()}


def refused_save(checkpoints: Path, step: int, parts: dict[str, Any]) -> list[str]:
    """What each process says of a checkpoint for which the last of them has no room."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if process_index() == num_processes() - 1:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        save_checkpoint(checkpoints, step=step, state={}, **parts)
        said = "nothing"
    except StorageError as error:
        said = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    return gather([said])


def train(recipe: Path, directory: Path, last_step: int, overrides: list[str]) -> None:
    workspace = Workspace(load_recipe(recipe, overrides), 0, directory)
    datasets.prepare(workspace)
    policy, encoder = workspace.load_policy_to_train("base")
    optimizer = make_optimizer(policy, learning_rate=1e-4, weight_decay=0.01)
    schedule = make_schedule(optimizer, kind="cosine", num_steps=20)
    parts: dict[str, Any] = {
        "modules": {"policy": policy},
        "optimizers": {"policy": optimizer},
        "schedulers": {"policy": schedule},
    }
    loaded = load_latest(directory / "checkpoints", **parts)
    state: dict[str, Any] = {"metrics": []} if loaded is None else loaded.state
    examples, gradients = datasets.read_sft(workspace, MAX_RESPONSE), {}
    for step in range(len(state["metrics"]) + 1, last_step + 1):
        batch = draw_batch(examples, (step - 1) * BATCH, BATCH, 0, "sft")
        loss = imitate(policy, pack_examples(encoder, batch, TOKEN_BUDGET))
        norm = clip_gradients(policy, MAX_NORM, step=step)
        named = policy.named_parameters()
        gradients = {name: whole(weight.grad) for name, weight in named if weight.grad is not None}
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        state["metrics"].append([loss, norm])
    save_checkpoint(directory / "checkpoints", step=last_step, state=state, **parts)
    found = whole_parts(policy, gradients)
    refused = refused_save(directory / "checkpoints", last_step + 1, parts)
    if is_first():
        save_file({name: tensor.clone() for name, tensor in found.items()}, directory / RESULT)
        (directory / METRICS).write_text(json.dumps(state["metrics"]))
        (directory / REFUSED).write_text(json.dumps(refused))


if __name__ == "__main__":
    use_double_precision()
    torch.set_num_threads(1)
    for order in map(json.loads, sys.stdin):

        def work(order: dict[str, Any] = order) -> None:
            with processes():
                train(Path(order["recipe"]), Path(order["directory"]), order["last_step"], order["overrides"])

        print(json.dumps(fork_all(order["num_processes"], work)), flush=True)
