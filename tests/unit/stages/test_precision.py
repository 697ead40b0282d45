"""Layers computed in bfloat16 while float32 weights train, in one process; and where results lie."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from prism.config import plan_stages
from prism.models import PromptEncoder, load_policy
from prism.models.adapters import merged_parameters
from prism.models.sharding import is_sharded, shard, whole, whole_weights
from prism.objectives import completion_nll
from prism.packing import PackedTrees, branch_logprobs, branch_scores
from prism.records import RolloutGroup
from prism.runtime.distributed import num_processes, processes
from prism.runtime.optimizer import descend, make_optimizer
from prism.stages import base, datasets, rlvr, sft
from prism.stages.policy_update import pack_groups
from prism.stages.workspace import Workspace

Make = Callable[..., Any]
RESOLUTION = 2.0**-8
"""Of bfloat16, relative."""


@pytest.fixture
def alone() -> Iterator[None]:
    with processes(also_alone=True):
        assert num_processes() == 1
        yield


@pytest.fixture
def packed(encoder: PromptEncoder, groups: list[RolloutGroup]) -> PackedTrees:
    [packed] = pack_groups(encoder, groups, 4096)
    return packed


def loss_of(policy: Any, packed: PackedTrees) -> Tensor:
    logprobs = branch_logprobs(policy, packed).logprobs[None]
    return completion_nll(logprobs, torch.ones_like(logprobs, dtype=torch.bool), logprobs.numel())


def test_gradients_are_those_of_float32_up_to_rounding_and_are_kept_in_float32(
    make_policy: Make, packed: PackedTrees, alone: None
) -> None:
    exact, rounded = make_policy(), shard(make_policy(), "bfloat16")
    assert is_sharded(rounded) and not is_sharded(shard(make_policy()))
    losses = [loss_of(policy, packed) for policy in (exact, rounded)]
    assert losses[1].dtype == torch.float32
    assert losses[0] != losses[1]
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=4 * RESOLUTION)
    for loss in losses:
        loss.backward()
    expected = {name: p.grad for name, p in exact.named_parameters() if p.grad is not None}
    for name, parameter in rounded.named_parameters():
        assert parameter.dtype == torch.float32
        # The keys' bias cancels in the softmax: its gradient is nothing but rounding.
        if (exact_gradient := expected.get(name)) is not None and exact_gradient.norm() > 1e-4:
            assert parameter.grad is not None and parameter.grad.dtype == torch.float32
            cosine = torch.cosine_similarity(whole(parameter.grad).flatten(), exact_gradient.flatten(), dim=0)
            assert cosine > 0.97, name


def test_a_model_that_only_samples_rounds_its_weights_and_no_frequency(make_workspace: Make, make_policy: Make) -> None:
    """Rounded rotary frequencies turn a token two thousand places away by wrong angles. So do those under adapters."""
    exact = {name: buffer.clone() for name, buffer in make_policy().named_buffers()}
    assert any(name.endswith("inv_freq") for name in exact)
    workspace = make_workspace(precision="bfloat16")
    used = workspace.to_use(make_policy())
    adapted = make_workspace(precision="bfloat16", lora={"rank": 2}).to_train(make_policy(), "policy")
    assert {weights.dtype for weights in used.parameters()} == {torch.bfloat16}
    for model in (used, adapted):
        found = dict(model.named_buffers())
        assert all(torch.equal(found[name], buffer) for name, buffer in exact.items())


def test_updates_too_small_for_bfloat16_add_up(make_policy: Make, packed: PackedTrees, alone: None) -> None:
    """Master weights in bfloat16 would not move at all."""
    policy = shard(make_policy(), "bfloat16")
    before = {name: whole(p.detach()).clone() for name, p in policy.named_parameters()}
    optimizer = make_optimizer(policy, learning_rate=1e-5, weight_decay=0.0)
    for step in range(1, 4):
        loss_of(policy, packed).backward()
        descend(policy, optimizer, 1.0, name="policy", step=step)
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    change = (whole(dict(policy.named_parameters())[name].detach()) - before[name]).abs()
    # Adam moves a weight by the learning rate at most, and by all of it in the first step.
    assert 1e-5 < change.median() < 3.1e-5
    assert change.median() < RESOLUTION * before[name].abs().median() / 10


def test_scores_are_not_rounded(make_discriminator: Make, packed: PackedTrees, alone: None) -> None:
    """Of a mixture, rounding may choose another expert."""
    views = torch.arange(packed.rows.numel()) % 2
    mixture, dense = (make_discriminator(mode) for mode in ("moe", "dense"))
    exact, _ = branch_scores(dense, packed, views=views)
    rounded, _ = branch_scores(shard(dense, "bfloat16"), packed, views=views)
    torch.testing.assert_close(rounded, exact, atol=0.05, rtol=0.05)
    mixed, logits = branch_scores(shard(mixture, "bfloat16"), packed, views=views, with_router=True)
    assert logits is not None and logits[0].dtype == torch.float32
    for scores in (rounded, mixed):
        assert scores.dtype == torch.float32
        assert not torch.equal(scores, scores.bfloat16().float())


class _Elsewhere(TorchDispatchMode):
    """The meta device as an accelerator: what comes back from it are zeros. Its kernels refuse to mix devices."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and args[0].is_meta and kwargs.get("device") == torch.device("cpu"):
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        return func(*args, **kwargs)


@pytest.mark.parametrize("role", ["policy", "moe", "dedicated"])
def test_a_model_elsewhere_is_given_its_inputs_there_and_results_come_back(
    make_policy: Make, make_discriminator: Make, encoder: PromptEncoder, groups: list[RolloutGroup], role: str
) -> None:
    without_images = [RolloutGroup(group.prompt, group.rollouts) for group in groups if not group.prompt.images]
    [packed] = pack_groups(encoder, without_images, 4096)
    # Matrices of experts are multiplied in bfloat16 alone there.
    model = (make_policy() if role == "policy" else make_discriminator(role).bfloat16()).to("meta")
    with _Elsewhere():
        if role == "policy":
            found = branch_logprobs(model, packed, banned_ids=torch.tensor([3]), with_entropy=True)
            assert found.entropies is not None and found.entropies.device.type == "cpu"
            results = [found.logprobs]
        else:
            views = torch.arange(packed.rows.numel()) % 2
            scores, logits = branch_scores(model, packed, views=views, with_router=True)
            results = [scores, *(logits or ())]
        assert len(results) == (1 if role == "policy" else 3)
        assert {result.device.type for result in results} == {"cpu"}
        torch.stack([result.sum() for result in results]).sum().backward()
    assert all(p.grad.is_meta for p in model.parameters() if p.grad is not None)
    assert any(p.grad is not None for p in model.parameters())


BRIEF = {"num_steps": 2, "max_response_tokens": 24, "learning_rate": 1e-3}


@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 8.0}])
def test_stages_train_in_bfloat16_and_end_with_float32_weights(
    make_workspace: Callable[..., Workspace], tmp_path: Path, lora: dict[str, Any] | None, alone: None
) -> None:
    workspace = make_workspace(
        output=tmp_path,
        precision="bfloat16",
        lora=lora,
        sft={**BRIEF, "batch_size": 2, "max_response_tokens": 320, "token_budget": 512},
        max_prompt_tokens=160,
        rlvr={**BRIEF, "prompts_per_step": 2, "group_size": 2, "token_budget": 512, "algorithms": ({"type": "grpo"},)},
    )
    datasets.prepare(workspace)
    runs = {"base": base.run, "sft": sft.run, "rlvr": rlvr.run}
    for stage in plan_stages(workspace.recipe):
        runs[stage.kind](workspace, stage)
    before, after = (dict(load_policy(workspace.model_directory(s)).named_parameters()) for s in ("base", "sft"))
    assert {p.dtype for p in after.values()} == {torch.float32}
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(before[name], after[name])
    assert not torch.equal(after[name], after[name].bfloat16().float()), "rounded away what was learned"
    used, _ = workspace.load_policy("sft")
    assert used.dtype == torch.bfloat16
    trained, _ = workspace.load_policy_to_train("sft")
    kept = whole_weights(trained, is_kept=True) or dict(merged_parameters(trained))
    for name, weight in after.items():
        expected = weight.bfloat16().float() if lora else weight
        assert torch.equal(kept[name].float(), expected), name
