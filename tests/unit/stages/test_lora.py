"""Adapters: nothing changes when they come, what they learned stays when they are merged, and stages train them."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prism.config import plan_stages
from prism.errors import ConfigError
from prism.models import Discriminator, PromptEncoder, checkpoint_weights, load_policy
from prism.models.adapters import add_adapters, has_adapters, merge_adapters, merged_parameters, save_adapters
from prism.packing import branch_logprobs
from prism.records import Prompt, Response, RolloutGroup
from prism.stages import align, base, datasets, rlvr, sft
from prism.stages import workspace as workspaces
from prism.stages.policy_update import pack_groups
from prism.stages.scoring import Contest, ContestBatch, score
from prism.stages.workspace import Workspace

Make = Callable[..., Any]
LORA = {"rank": 2, "alpha": 8.0}


def run_stages(workspace: Workspace) -> None:
    datasets.prepare(workspace)
    runs = {"base": base.run, "sft": sft.run, "align": align.run, "rlvr": rlvr.run}
    for stage in plan_stages(workspace.recipe):
        runs[stage.kind](workspace, stage)


def teach(model: torch.nn.Module) -> None:
    """B of every adapter, and the routers, as if they had been trained."""
    random_source = torch.Generator().manual_seed(4)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or (".mlp.gate." in name and parameter.requires_grad):
            with torch.no_grad():
                parameter += 0.3 * torch.randn(parameter.shape, generator=random_source)


@pytest.fixture
def read(encoder: PromptEncoder, groups: list[RolloutGroup]) -> Callable[[Any], Tensor]:
    [packed] = pack_groups(encoder, groups, 4096)

    @torch.no_grad()
    def logprobs(policy: Any) -> Tensor:
        return branch_logprobs(policy, packed).logprobs

    return logprobs


@pytest.fixture
def judge(encoder: PromptEncoder, make_prompt: Callable[..., Prompt]) -> Callable[[Discriminator], Tensor]:
    def response(caption: str) -> Response:
        text = f"<caption>{caption}</caption><think>1. find red.</think><answer>2</answer>"
        return Response(text, caption=caption, think="1. find red.", answer="2", is_valid=True)

    contest = Contest(make_prompt(0), response("a1 red circle 2."), (response("a1 blue star 5."),))

    def scores(discriminator: Discriminator) -> Tensor:
        return score(discriminator, ContestBatch(encoder, [contest], 4096, discriminator.mode))

    return scores


def test_a_policy_is_the_same_before_the_first_update_and_after_merging(make_policy: Make, read: Make) -> None:
    policy = make_policy()
    names, before = [name for name, _ in policy.named_parameters()], read(policy)
    add_adapters(policy, rank=2, alpha=8.0, seed=1)
    assert torch.equal(read(policy), before) and has_adapters(policy)
    assert all("lora_" in name for name, parameter in policy.named_parameters() if parameter.requires_grad)
    teach(policy)
    trained = read(policy)
    assert (trained - before).abs().max() > 0.1
    merged = dict(merged_parameters(policy))
    assert list(merged) == names
    fresh = make_policy(seed=9)
    fresh.load_state_dict(merged | {"lm_head.weight": merged["model.language_model.embed_tokens.weight"]})
    torch.testing.assert_close(read(fresh), trained, atol=1e-5, rtol=1e-5)
    merge_adapters(policy)
    assert [name for name, _ in policy.named_parameters()] == names and not has_adapters(policy)
    torch.testing.assert_close(read(policy), trained, atol=1e-5, rtol=1e-5)


def test_a_discriminator_of_any_mode_likewise(discriminator: Discriminator, judge: Make) -> None:
    before, names = judge(discriminator), [name for name, _ in discriminator.named_parameters()]
    add_adapters(discriminator.model, rank=2, alpha=8.0, seed=1)
    assert torch.equal(judge(discriminator), before)
    trains = {name for name, parameter in discriminator.named_parameters() if parameter.requires_grad}
    plain = {name for name in trains if "lora_" not in name}
    routers = {name for name in names if name.endswith(".mlp.gate.weight")}
    assert plain == routers | {"head.weight"}
    assert (discriminator.mode == "dense") == (not routers)
    assert any(".experts." in name for name in trains) == bool(routers)
    teach(discriminator)
    trained = judge(discriminator)
    assert (trained - before).abs().min() > 1e-3
    merge_adapters(discriminator)
    assert [name for name, _ in discriminator.named_parameters()] == names
    torch.testing.assert_close(judge(discriminator), trained, atol=1e-4, rtol=1e-4)


class MetaAsDevice(TorchDispatchMode):
    """The meta device in a GPU's place: what is copied from it to the CPU is zeros; `made` are the tensors that
    operations put on it."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("device") == torch.device("cpu"):
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        output = func(*args, **kwargs)
        # A view takes no memory of its own.
        given = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_meta]
        self.made += [leaf for leaf in leaves if id(leaf.untyped_storage()) not in given]
        return output


@pytest.mark.parametrize("has_experts", [False, True])
def test_merging_takes_no_memory_on_the_device(make_policy: Make, make_discriminator: Make, has_experts: bool) -> None:
    model = make_discriminator("moe").model if has_experts else make_policy()
    model.to(torch.bfloat16)
    add_adapters(model, rank=2, alpha=8.0, seed=1)
    model.to("meta")
    with MetaAsDevice() as device:
        merge_adapters(model)
    assert device.made == []
    assert {(weight.device.type, weight.dtype) for weight in model.parameters()} == {("cpu", torch.float32)}


@pytest.mark.parametrize("has_experts", [False, True])
def test_rounded_weights_are_merged_in_float32(make_policy: Make, make_discriminator: Make, has_experts: bool) -> None:
    model = make_discriminator("moe").model if has_experts else make_policy()
    model.to(torch.bfloat16)
    add_adapters(model, rank=2, alpha=8.0, seed=1)
    teach(model)
    expected = dict(merged_parameters(copy.deepcopy(model).float()))
    merge_adapters(model)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, expected[name]), name
    assert any(not torch.equal(weight, weight.bfloat16().float()) for weight in model.parameters())


def test_each_expert_has_an_adapter_of_its_own(make_discriminator: Make) -> None:
    body = make_discriminator("moe").model
    add_adapters(body, rank=2, alpha=8.0, seed=1)
    before = {name: tensor.clone() for name, tensor in merged_parameters(body)}
    teach(body)
    name = "language_model.layers.0.mlp.experts.down_proj"
    change = dict(merged_parameters(body))[name] - before[name]
    assert not torch.allclose(change[0], change[1])
    assert all(torch.linalg.matrix_rank(part) == 2 for part in change)


def test_adapters_are_written_as_peft_reads_them(make_policy: Make, read: Make, tmp_path: Path) -> None:
    policy = make_policy()
    add_adapters(policy, rank=2, alpha=8.0, seed=1)
    teach(policy)
    save_adapters(policy, tmp_path)
    loaded = peft.PeftModel.from_pretrained(make_policy(), tmp_path)
    torch.testing.assert_close(read(loaded.base_model.model), read(policy))


def test_what_is_drawn_follows_from_the_seed_and_leaves_the_global_generator_alone(make_policy: Make) -> None:
    def drawn(seed: int) -> Tensor:
        policy = make_policy()
        add_adapters(policy, rank=2, alpha=8.0, seed=seed)
        return torch.cat([parameter.flatten() for name, parameter in policy.named_parameters() if "lora_A" in name])

    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = drawn(1)
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(first, drawn(1)) and not torch.equal(first, drawn(2))


def test_a_stage_that_was_cut_off_ends_in_the_same_bytes_and_its_checkpoint_holds_the_adapters_alone(
    make_workspace: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "lora": LORA,
        "sft": {"num_steps": 3, "batch_size": 2, "learning_rate": 1e-2, "checkpoint_every": 1}
        | {"max_response_tokens": 240, "token_budget": 2400},
    }

    def run(directory: Path) -> Workspace:
        workspace = make_workspace(output=directory, **settings)
        run_stages(workspace)
        return workspace

    def files(workspace: Workspace) -> dict[str, bytes]:
        stage = workspace.stage_directory("sft")
        names = ("metrics.jsonl", "model/model.safetensors", "model-adapter/adapter_model.safetensors")
        return {name: (stage / name).read_bytes() for name in names}

    whole = run(tmp_path / "whole")
    imitate, calls = sft.imitate, []

    def cut(*arguments: Any) -> float:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return imitate(*arguments)

    monkeypatch.setattr(sft, "imitate", cut)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut")
    monkeypatch.undo()
    [checkpoint] = (tmp_path / "cut").rglob("step-000002")
    shipped = workspaces.SHIPPED_BASE / "model.safetensors"
    assert (checkpoint / "module-policy-00000.safetensors").stat().st_size < shipped.stat().st_size / 3
    assert files(run(tmp_path / "cut")) == files(whole)
    start = load_policy(whole.model_directory("base"))
    end = load_policy(whole.stage_directory("sft") / "model")
    adapted: Any = peft.PeftModel.from_pretrained(start, whole.stage_directory("sft") / "model-adapter")
    expected = dict(checkpoint_weights(adapted.base_model.model))
    for name, tensor in checkpoint_weights(end):
        torch.testing.assert_close(tensor, expected[name])


def test_the_game_and_rlvr_train_adapters(make_workspace: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"prompts_per_step": 2, "group_size": 2, "max_response_tokens": 170, "token_budget": 2300, "num_steps": 1}
    workspace = make_workspace(
        lora=LORA,
        align=sizes | {"policy_learning_rate": 1e-3, "discriminator_learning_rate": 1e-3},
        rlvr=sizes | {"algorithms": ({"type": "grpo"},), "learning_rate": 1e-3},
    )
    write, written = workspaces._write, []

    def write_when_others_are_gone(model: Any, *arguments: Any) -> None:
        assert not any(weight.is_meta for weight in model.parameters())
        assert all(weight.is_meta for other in written for weight in other.parameters())
        written.append(model)
        write(model, *arguments)

    monkeypatch.setattr(workspaces, "_write", write_when_others_are_gone)
    run_stages(workspace)
    assert len(written) == 4
    for stage in plan_stages(workspace.recipe)[1:]:
        manifest = json.loads((workspace.stage_directory(stage.name) / "manifest.json").read_text())
        assert manifest["config"]["LoraConfig"] == LORA | {"policy": True, "discriminator": True}
        assert {"model", "model-adapter"} <= manifest["outputs"].keys()
    assert not has_adapters(load_policy(workspace.stage_directory("align") / "model"))
    assert Discriminator.from_pretrained(workspace.stage_directory("align") / "discriminator").mode == "moe"


def test_without_peft_the_error_names_the_extra(make_policy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install -e "\.\[lora\]"'):
        add_adapters(make_policy(), rank=2, alpha=8.0, seed=1)
