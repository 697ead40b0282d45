"""Low-rank adapters (LoRA, by peft) put into a model in place, and taken out of it again.

The model stays of its own class; names of adapted weights get `base_layer` in them, and the adapters' own stand beside
them. Matrices of experts are adapted as well, each expert by itself, and routers are trained in full: experts that are
copies of one another would otherwise stay so.
"""

import copy
import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import Qwen3VLMoeTextTopKRouter

from prism.errors import ConfigError, ModelError
from prism.packing.forward import at_least_float32

ADAPTER = "default"
_LINEAR = r".*language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
_EXPERTS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
_ROUTER = ".mlp.gate.weight"
_MARK, _BASE = ".lora_", ".base_layer"


def add_adapters(body: nn.Module, *, rank: int, alpha: float, seed: int) -> None:
    """Freezes `body` and puts adapters into the matrices of its language layers, vision tower and embeddings left out.

    W becomes W + (alpha / rank) · B · A with B = 0, so that nothing changes before the first update. `seed` decides A.
    What trains is in float32, whatever the precision of `body`. Raises ConfigError without peft, ModelError where there
    is nothing to adapt.
    """
    peft = _import_peft()
    names = [name for name, _ in body.named_parameters()]
    experts = [part for part in _EXPERTS if any(name.endswith(part) for name in names)]
    settings = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=_LINEAR, target_parameters=experts or None)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            peft.inject_adapter_in_model(settings, body, adapter_name=ADAPTER)
        except ValueError as error:
            raise ModelError(f"no layer of {type(body).__name__} can have adapters") from error
    for name, parameter in body.named_parameters():
        if name.endswith(_ROUTER):
            parameter.requires_grad_()
        if parameter.requires_grad:
            parameter.data = at_least_float32(parameter.data)
    for router in _routers(body):
        # An attribute of the module itself goes before its class's method; `merge_adapters` takes it away.
        router.__dict__["forward"] = partial(_route, router, router.forward)


def _routers(model: nn.Module) -> list[Qwen3VLMoeTextTopKRouter]:
    return [part for part in model.modules() if isinstance(part, Qwen3VLMoeTextTopKRouter)]


def _route(router: nn.Module, forward: Callable[[Tensor], tuple[Tensor, ...]], hidden: Tensor) -> tuple[Tensor, ...]:
    """Routes hidden states of another precision than the router's own, and weighs experts in theirs."""
    logits, weights, experts = forward(hidden.to(next(router.parameters()).dtype))
    return logits, weights.to(hidden.dtype), experts


def has_adapters(model: nn.Module) -> bool:
    return any(_MARK in name for name, _ in model.named_parameters())


def merged_parameters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All parameters by the names they have without adapters, detached, with the adapters added."""
    deltas: dict[int, list[Any]] = {}
    if has_adapters(model):
        for layer in _adapted_layers(model):
            deltas.setdefault(id(_adapted(layer)), []).append(layer)
    for name, parameter in model.named_parameters():
        if _MARK in name:
            continue
        tensor = parameter.detach()
        with torch.no_grad():
            for layer in deltas.get(id(parameter), ()):
                tensor = tensor + layer.get_delta_weight(ADAPTER)
        yield name.replace(_BASE, ""), tensor


def merge_adapters(model: nn.Module) -> None:
    """Adds the adapters to the weights and takes them out: what is left, on the CPU, is a plain model that computes
    the same.

    In float32 at least: an adapter may be smaller than what bfloat16 rounds away.
    """
    # A device that holds frozen weights in bfloat16, other models and optimizer states has no room for float32 copies.
    # Moving the weights takes none there and frees theirs one by one.
    model.cpu()
    for parameter in model.parameters():
        parameter.data = at_least_float32(parameter.data)
    for layer in _adapted_layers(model):
        layer.merge(safe_merge=True)
    # Adapters around the matrices of experts are one inside the other: the innermost holds the plain module.
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            plain: Any = child
            while hasattr(plain, "base_layer"):
                plain = plain.base_layer
            if plain is not child:
                setattr(parent, name, plain)
    for router in _routers(model):
        del router.__dict__["forward"]
    for part in model.modules():
        part.__dict__.pop("peft_config", None)


def save_adapters(model: nn.Module, directory: str | PathLike[str]) -> None:
    """Writes the adapters as peft keeps them (`PeftModel.from_pretrained`), for the model they were put into.

    Routers and a discriminator's head, which are trained in full, are not among them: the merged weights hold them.
    """
    peft = _import_peft()
    owner: Any = next(part for part in model.modules() if hasattr(part, "peft_config"))
    state = peft.get_peft_model_state_dict(owner, adapter_name=ADAPTER)
    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    tensors = {f"base_model.model.{name}": tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, path / "adapter_model.safetensors")
    settings = copy.copy(owner.peft_config[ADAPTER])
    settings.inference_mode = True
    settings.save_pretrained(path)


def _adapted_layers(model: nn.Module) -> list[Any]:
    return [part for part in model.modules() if hasattr(part, "lora_A") and hasattr(part, "get_delta_weight")]


def _adapted(layer: Any) -> nn.Parameter:
    """The parameter that `layer` adds to."""
    return layer.get_param() if hasattr(layer, "parameter_name") else layer.get_base_layer().weight


def require_peft() -> None:
    """Raises ConfigError where peft is not installed; does not import it."""
    if importlib.util.find_spec("peft") is None:
        raise ConfigError(
            'lora: peft is not installed: pip install -e ".[lora]" in PRISM\'s directory, or leave [lora] out'
        )


def _import_peft() -> Any:
    require_peft()
    return importlib.import_module("peft")
