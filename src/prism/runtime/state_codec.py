"""Modules and optimizers as named tensors plus JSON: what safetensors files can hold, bit for bit."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from prism.errors import CheckpointError

_TENSOR, _TUPLE, _PAIRS = "@tensor", "@tuple", "@pairs"


def split_tensors(tree: Any, path: str = "") -> tuple[Any, dict[str, Tensor]]:
    """Separate nested dicts, lists and tuples into a JSON-able tree and the tensors it refers to by name.

    Keys that are not strings and tuples survive `join_tensors`. TypeError for any other object.
    """
    tensors: dict[str, Tensor] = {}

    def encode(node: Any, name: str) -> Any:
        if isinstance(node, Tensor):
            tensors[name] = node
            return {_TENSOR: name}
        if isinstance(node, list | tuple):
            items = [encode(item, f"{name}/{index}") for index, item in enumerate(node)]
            return {_TUPLE: items} if isinstance(node, tuple) else items
        if isinstance(node, Mapping):
            if all(isinstance(key, str) and not key.startswith("@") for key in node):
                return {key: encode(item, f"{name}/{key}") for key, item in node.items()}
            return {_PAIRS: [[key, encode(item, f"{name}/{key}")] for key, item in node.items()]}
        if node is None or isinstance(node, bool | int | float | str):
            return node
        raise TypeError(f"{name or 'the state'} is a {type(node).__name__}, which a checkpoint cannot hold")

    return encode(tree, path), tensors


def join_tensors(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `split_tensors`."""
    if isinstance(tree, list):
        return [join_tensors(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if _TENSOR in tree:
        return tensors[tree[_TENSOR]]
    if _TUPLE in tree:
        return tuple(join_tensors(item, tensors) for item in tree[_TUPLE])
    if _PAIRS in tree:
        return {key: join_tensors(item, tensors) for key, item in tree[_PAIRS]}
    return {key: join_tensors(item, tensors) for key, item in tree.items()}


def storable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, no two in the same memory: what safetensors asks for. Copies only where it must."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        if memory in seen:
            tensor = tensor.clone()
        seen.add(memory)
        result[name] = tensor
    return result


def module_tensors(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All parameters that train and all persistent buffers, each tied one once, and the ties as
    {other name: stored name}. What is frozen is as it was loaded."""
    stored: dict[str, Tensor] = {}
    ties: dict[str, str] = {}
    first_name: dict[int, str] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} is a {type(tensor).__name__}, which a checkpoint cannot hold")
        if isinstance(tensor, nn.Parameter) and not tensor.requires_grad:
            continue
        if id(tensor) in first_name:
            ties[name] = first_name[id(tensor)]
        else:
            first_name[id(tensor)] = name
            stored[name] = tensor.detach()
    return stored, ties


def module_targets(
    module: nn.Module, saved: Mapping[str, Tensor], ties: Mapping[str, str], source: str
) -> dict[str, Tensor]:
    """The module's own tensors to copy those of `source` into, so that ties and optimizer references stay.

    CheckpointError where names, shapes, dtypes or ties of what was `saved` are not the module's; its content, which
    need not be there, is not looked at.
    """
    targets, own_ties = module_tensors(module)
    if targets.keys() != saved.keys() or own_ties != dict(ties):
        differing = sorted((targets.keys() ^ saved.keys()) | (own_ties.items() ^ ties.items()), key=str)
        raise CheckpointError(f"{source} belongs to another model: they differ in {differing[0]}")
    for name, target in targets.items():
        other = saved[name]
        if (other.shape, other.dtype) != (target.shape, target.dtype):
            raise CheckpointError(
                f"{source} belongs to another model: {name} is {other.dtype} {tuple(other.shape)} there "
                f"and {target.dtype} {tuple(target.shape)} here"
            )
    return targets
