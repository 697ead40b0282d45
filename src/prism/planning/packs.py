"""Packed sequences as numbers: what `prism.packing` would make of trees of given lengths."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tree:
    """A prompt of `prompt` tokens, those of its images among them, and the lengths of its branches. `images` holds the
    patches of each image, before merging."""

    prompt: int
    branches: tuple[int, ...]
    images: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Pack:
    """One packed sequence: its tokens, those of them that are in branches, the pairs of tokens of which one may look at
    the other, the patches of each image."""

    tokens: int
    targets: int
    visible: int
    images: tuple[int, ...] = ()

    @property
    def patches(self) -> int:
        return sum(self.images)


def pack_lengths(trees: Sequence[Tree], token_budget: int) -> list[Pack]:
    """The sequences of `prism.packing.pack_trees`: first fit, a tree that is too large split between its branches."""
    packs: list[Pack] = []
    for piece in _pieces(trees, token_budget):
        for place, pack in enumerate(packs):
            if pack.tokens + piece.tokens <= token_budget:
                packs[place] = _join(pack, piece)
                break
        else:
            packs.append(piece)
    return packs


def _pieces(trees: Iterable[Tree], token_budget: int) -> list[Pack]:
    """A branch sees its prompt and what of itself came before: l · (prompt + (l + 1) / 2) pairs."""
    pieces: list[Pack] = []
    for tree in trees:
        alone = Pack(tree.prompt, 0, _triangle(tree.prompt), tree.images)
        current: Pack | None = None
        for length in tree.branches:
            branch = Pack(length, length, length * tree.prompt + _triangle(length))
            if current is not None and current.tokens + length <= token_budget:
                current = _join(current, branch)
                pieces[-1] = current
            else:
                current = _join(alone, branch)
                pieces.append(current)
    return pieces


def _triangle(length: int) -> int:
    return length * (length + 1) // 2


def _join(first: Pack, second: Pack) -> Pack:
    return Pack(
        first.tokens + second.tokens,
        first.targets + second.targets,
        first.visible + second.visible,
        first.images + second.images,
    )


def own_share(packs: Sequence[Pack], ranks: int) -> list[Pack]:
    """What one rank runs while all run theirs: in every round the longest, for which the others wait.

    Packs are dealt out longest first, as many at a time as there are ranks (`prism.runtime.distributed.share`).
    """
    return sorted(packs, key=lambda pack: -pack.tokens)[::ranks]


def expected_longest(lengths: Sequence[int], count: int) -> float:
    """Expected maximum of `count` lengths drawn with replacement: Σ x₍ᵢ₎ · ((i/n)^count − ((i−1)/n)^count)."""
    ordered, size = sorted(lengths), len(lengths)
    return sum(
        length * ((place / size) ** count - ((place - 1) / size) ** count)
        for place, length in enumerate(ordered, start=1)
    )
