"""Packed sequences as numbers: what `prism.packing` would make of trees of given lengths."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from operator import add

from prism.packing.fit import fit


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
    the other, the patches of each image.

    The rest is what `prism.packing.attention.attend` makes of trees with several branches: `calls`, one with a mask for
    each branch; `joined` keys, those of its prompt and its own; `masked`, the numbers of the masks, a pair each;
    `hidden`, how many of these forbid. `parts` counts its pieces of trees that are split.
    """

    tokens: int
    targets: int
    visible: int
    images: tuple[int, ...] = ()
    calls: int = 0
    joined: int = 0
    masked: int = 0
    hidden: int = 0
    parts: int = 0

    def __add__(self, other: "Pack") -> "Pack":
        return Pack(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(Pack)))

    @property
    def patches(self) -> int:
        return sum(self.images)


def pack_lengths(trees: Sequence[Tree], token_budget: int, num_shares: int = 1) -> list[Pack]:
    """The sequences of `prism.packing.pack_trees`: a tree that is too large is split between its branches."""
    pieces = _pieces(trees, token_budget)
    places = fit(
        [piece.tokens for piece in pieces],
        token_budget,
        num_shares=num_shares,
        has_images=[bool(piece.images) for piece in pieces],
    )
    return [reduce(add, (pieces[place] for place in sequence)) for sequence in places]


def _pieces(trees: Iterable[Tree], token_budget: int) -> list[Pack]:
    pieces: list[Pack] = []
    for tree in trees:
        parts: list[list[int]] = []
        for length in tree.branches:
            if not parts or tree.prompt + sum(parts[-1]) + length > token_budget:
                parts.append([])
            parts[-1].append(length)
        pieces += [replace(_piece(tree, part), parts=int(len(parts) > 1)) for part in parts]
    return pieces


def _piece(tree: Tree, branches: Sequence[int]) -> Pack:
    """A branch sees its prompt and what of itself came before: l · (prompt + (l + 1) / 2) pairs.

    A lone branch counts to its prompt; beside others it is a call with a mask of l · (prompt + l).
    """
    prompt, targets = tree.prompt, sum(branches)
    visible = _triangle(prompt) + sum(length * prompt + _triangle(length) for length in branches)
    alone = Pack(prompt + targets, targets, visible, tree.images)
    if len(branches) == 1:
        return alone
    return replace(
        alone,
        calls=len(branches),
        joined=sum(prompt + length for length in branches),
        masked=sum(length * (prompt + length) for length in branches),
        hidden=sum(_triangle(length - 1) for length in branches),
    )


def _triangle(length: int) -> int:
    return length * (length + 1) // 2


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
