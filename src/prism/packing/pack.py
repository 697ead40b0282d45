"""Packs prompt trees into sequences without padding.

    [ prompt A | branch A1 | branch A2 | … | prompt B | branch B1 | … ]

A branch attends to its own prompt and to itself only, and its positions continue its prompt's, so
one forward over the packed sequence equals one forward per (prompt, branch) pair.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prism.errors import DataError
from prism.packing.fit import fit
from prism.packing.tree import Branch, EncodedPrompt, Pixels, PromptTree

PROMPT = -1
"""The branch id of prompt tokens."""

Runs = tuple[tuple[int, ...], ...]
"""Per tree the length of its prompt and those of its branches; a lone branch counts to its prompt."""


@dataclass(frozen=True, slots=True, eq=False)
class PackedTrees:
    """One packed sequence of `length` tokens, and where its targets and branch ends lie.

    Rows count branches over all trees given to `pack_trees`, in order; columns count the tokens of
    one branch. The hidden state at `target_positions[i]` predicts `target_ids[i]`, which is token
    `target_columns[i]` of branch `target_rows[i]`.
    """

    input_ids: Int[Tensor, "length"]
    position_ids: Int[Tensor, "3 length"]
    tree_ids: Int[Tensor, "length"]
    branch_ids: Int[Tensor, "length"]
    pixels: tuple[Pixels, ...]
    image_grid_thw: Int[Tensor, "images 3"] | None
    target_positions: Int[Tensor, "targets"]
    target_ids: Int[Tensor, "targets"]
    target_rows: Int[Tensor, "targets"]
    target_columns: Int[Tensor, "targets"]
    end_positions: Int[Tensor, "branches"]
    rows: Int[Tensor, "branches"]
    runs: Runs

    def __len__(self) -> int:
        return self.input_ids.numel()

    @property
    def pixel_values(self) -> Float[Tensor, "patches values"] | None:
        """Those of all images, where the other tensors are; None for a sequence without images."""
        if not self.pixels:
            return None
        return torch.cat([pixels.values for pixels in self.pixels]).to(self.input_ids.device)

    def to(self, device: torch.device | str) -> "PackedTrees":
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        moved = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **moved)


@dataclass(slots=True)
class _Piece:
    """A prompt with those of its branches that go into one sequence."""

    prompt: EncodedPrompt
    branches: list[tuple[int, Branch]]
    length: int


def pack_trees(trees: Sequence[PromptTree], *, token_budget: int, num_shares: int = 1) -> list[PackedTrees]:
    """Packs `trees` into sequences of at most `token_budget` tokens, as few as `fit` finds for `num_shares` processes.

    A tree that does not fit is split between branches, its prompt repeated. Nothing is ever cut:
    a branch that does not fit beside its own prompt raises DataError.
    """
    pieces = _pieces(trees, token_budget)
    places = fit(
        [piece.length for piece in pieces],
        token_budget,
        num_shares=num_shares,
        has_images=[piece.prompt.pixels is not None for piece in pieces],
    )
    return [_assemble([pieces[place] for place in sequence]) for sequence in places]


def _pieces(trees: Sequence[PromptTree], token_budget: int) -> list[_Piece]:
    pieces: list[_Piece] = []
    row = 0
    for tree in trees:
        current: _Piece | None = None
        for branch in tree.branches:
            alone = len(tree.prompt) + len(branch)
            if alone > token_budget:
                raise DataError(
                    f"a prompt of {len(tree.prompt)} and a branch of {len(branch)} tokens exceed the token budget "
                    f"of {token_budget}: raise token_budget or drop the row"
                )
            if len(branch) == 0:
                raise DataError(f"branch {row} is empty: a branch needs at least its end token")
            if current is None or current.length + len(branch) > token_budget:
                current = _Piece(tree.prompt, [], len(tree.prompt))
                pieces.append(current)
            current.branches.append((row, branch))
            current.length += len(branch)
            row += 1
    return pieces


def _assemble(pieces: list[_Piece]) -> PackedTrees:
    ids, positions, tree_ids, branch_ids = [], [], [], []
    sources, targets, target_rows, target_columns, ends, rows = [], [], [], [], [], []
    offset = 0
    for tree_index, piece in enumerate(pieces):
        prompt = piece.prompt
        prompt_end = offset + len(prompt) - 1
        ids.append(prompt.token_ids)
        positions.append(prompt.position_ids)
        branch_ids.append(torch.full((len(prompt),), PROMPT))
        offset += len(prompt)
        for branch_index, (row, branch) in enumerate(piece.branches):
            length = len(branch)
            steps = torch.arange(length)
            ids.append(branch.token_ids)
            positions.append((prompt.next_position + steps).expand(3, -1))
            branch_ids.append(torch.full((length,), branch_index))
            columns = branch.mask.nonzero().flatten()
            # The token before a branch's first token is the last one of the prompt.
            sources.append(torch.where(columns == 0, prompt_end, offset + columns - 1))
            targets.append(branch.token_ids[columns])
            target_rows.append(torch.full_like(columns, row))
            target_columns.append(columns)
            ends.append(offset + length - 1)
            rows.append(row)
            offset += length
        tree_ids.append(torch.full((piece.length,), tree_index))
    grids = [piece.prompt.image_grid_thw for piece in pieces if piece.prompt.image_grid_thw is not None]
    return PackedTrees(
        input_ids=torch.cat(ids),
        position_ids=torch.cat(positions, dim=1),
        tree_ids=torch.cat(tree_ids),
        branch_ids=torch.cat(branch_ids),
        pixels=tuple(piece.prompt.pixels for piece in pieces if piece.prompt.pixels is not None),
        image_grid_thw=torch.cat(grids) if grids else None,
        target_positions=torch.cat(sources),
        target_ids=torch.cat(targets),
        target_rows=torch.cat(target_rows),
        target_columns=torch.cat(target_columns),
        end_positions=torch.tensor(ends),
        rows=torch.tensor(rows),
        runs=tuple(_runs(piece) for piece in pieces),
    )


def _runs(piece: _Piece) -> tuple[int, ...]:
    lengths = [len(branch) for _, branch in piece.branches]
    return (len(piece.prompt), *lengths) if len(lengths) > 1 else (len(piece.prompt) + lengths[0],)
