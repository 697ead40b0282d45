"""Packed forwards against single-sequence forwards of the same model, with the model's own positions."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
)

from prism.errors import DataError
from prism.packing import (
    Branch,
    EncodedPrompt,
    Pixels,
    PromptTree,
    branch_logprobs,
    branch_scores,
    pack_trees,
    to_rows,
    token_views,
)
from prism.packing.attention import tree_block_mask, use_flex_attention

IMAGE, START, END = 4, 2, 3
BANNED = torch.tensor([0, 1, IMAGE])
TEXT: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1e4,
        "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
    },
    "tie_word_embeddings": True,
    "initializer_range": 0.2,
}
VISION: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_heads": 2,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 32,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0],
    "initializer_range": 0.2,
}
IDS: dict[str, Any] = {
    "image_token_id": IMAGE,
    "video_token_id": 5,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
}
MOE: dict[str, Any] = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "decoder_sparse_step": 1,
}


def build(kind: str):
    torch.manual_seed(0)
    if kind == "dense":
        return Qwen3VLForConditionalGeneration(
            Qwen3VLConfig(text_config=TEXT, vision_config=VISION, tie_word_embeddings=True, **IDS)
        ).eval()
    config = Qwen3VLMoeConfig(text_config=TEXT | MOE, vision_config=VISION, tie_word_embeddings=True, **IDS)
    return Qwen3VLMoeForConditionalGeneration(config).eval()


def draw_prompt(model, grids: list[tuple[int, int]], generator: torch.Generator) -> EncodedPrompt:
    ids = torch.randint(6, 96, (3,), generator=generator).tolist()
    for height, width in grids:
        ids += [START] + [IMAGE] * (height * width // 4) + [END]
        ids += torch.randint(6, 96, (2,), generator=generator).tolist()
    token_ids = torch.tensor(ids)
    grid = torch.tensor([(1, height, width) for height, width in grids]) if grids else None
    patches = sum(height * width for height, width in grids)
    pixels = torch.randn(patches, 3 * 2 * 4 * 4, generator=generator) if grids else None
    positions, _ = model.model.get_rope_index(
        token_ids[None], mm_token_type_ids=(token_ids == IMAGE).int()[None], image_grid_thw=grid
    )
    following = int(positions.max()) + 1
    return EncodedPrompt(
        token_ids, positions[:, 0], following, None if pixels is None else Pixels(lambda: pixels), grid
    )


def draw_branch(length: int, generator: torch.Generator) -> Branch:
    return Branch(
        torch.randint(6, 96, (length,), generator=generator),
        torch.rand(length, generator=generator) < 0.7,
    )


def make_trees(model) -> list[PromptTree]:
    generator = torch.Generator().manual_seed(3)
    shapes = [([(4, 4)], (5, 1, 9)), ([], (4, 6)), ([(4, 8), (8, 4)], (7, 3)), ([(4, 4)], (2,))]
    return [
        PromptTree(draw_prompt(model, grids, generator), tuple(draw_branch(length, generator) for length in lengths))
        for grids, lengths in shapes
    ]


def single(model, prompt: EncodedPrompt, branch: Branch):
    """Hidden states of prompt + branch alone: no mask and no positions of ours."""
    token_ids = torch.cat([prompt.token_ids, branch.token_ids])[None]
    output = model.model(
        input_ids=token_ids,
        mm_token_type_ids=(token_ids == IMAGE).int(),
        pixel_values=prompt.pixel_values,
        image_grid_thw=prompt.image_grid_thw,
        use_cache=False,
    )
    return output.last_hidden_state[0]


def branches_of(trees):
    return [(tree.prompt, branch) for tree in trees for branch in tree.branches]


@pytest.mark.parametrize("kind", ["dense", "moe"])
@pytest.mark.parametrize("budget", [10_000, 40])
@pytest.mark.parametrize("banned", [None, BANNED])
def test_logprobs_entropies_and_gradients_equal_those_of_single_sequences(kind, budget, banned):
    model = build(kind)
    trees = make_trees(model)
    packs = pack_trees(trees, token_budget=budget)
    assert (len(packs) == 1) == (budget == 10_000)

    matrix = torch.zeros(8, 9)
    entropies = torch.zeros(8, 9)
    for packed in packs:
        result = branch_logprobs(model, packed, temperature=0.7, banned_ids=banned, with_entropy=True)
        values, mask = to_rows(result.logprobs, packed, num_columns=9)
        matrix[packed.rows] = torch.where(mask, values, 0).detach()
        assert result.entropies is not None
        entropies[packed.rows] = to_rows(result.entropies, packed, num_columns=9)[0]
        (values * mask).square().sum().backward()
    packed_gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    model.zero_grad()
    for row, (prompt, branch) in enumerate(branches_of(trees)):
        hidden = single(model, prompt, branch)[len(prompt) - 1 : -1]
        logits = model.lm_head(hidden) / 0.7
        if banned is not None:
            logits[:, banned] = -torch.inf
        distribution = torch.log_softmax(logits, -1)
        expected = distribution.gather(-1, branch.token_ids[:, None])[:, 0] * branch.mask
        torch.testing.assert_close(matrix[row, : len(branch)], expected.detach(), atol=1e-5, rtol=0)
        entropy = torch.distributions.Categorical(probs=distribution.exp()).entropy() * branch.mask
        torch.testing.assert_close(entropies[row, : len(branch)], entropy.detach(), atol=1e-5, rtol=0)
        expected.square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert gradients.keys() == packed_gradients.keys()
    for name, gradient in gradients.items():
        scale = max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(packed_gradients[name], gradient, atol=1e-5 * scale, rtol=0, msg=name)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_flex_attention_reads_as_single_sequences_do(kind):
    """Longer than the blocks of its mask, so that some are left out. Its kernel is a GPU's; this is its definition."""
    model = build(kind)
    use_flex_attention(model)
    generator = torch.Generator().manual_seed(5)
    trees = [
        PromptTree(draw_prompt(model, grids, generator), tuple(draw_branch(n, generator) for n in lengths))
        for grids, lengths in [([(8, 8)], (130, 60)), ([(4, 4)], (150, 9)), ([], (20,))]
    ]
    [packed] = pack_trees(trees, token_budget=10_000)
    assert tree_block_mask(packed.tree_ids, packed.branch_ids).sparsity() > 15
    with torch.no_grad():
        logprobs, mask = to_rows(branch_logprobs(model, packed).logprobs, packed, num_columns=150)
        for row, (prompt, branch) in enumerate(branches_of(trees)):
            hidden = single(model, prompt, branch)[len(prompt) - 1 : -1]
            expected = model.lm_head(hidden).log_softmax(-1).gather(-1, branch.token_ids[:, None])[:, 0]
            found = logprobs[row, : len(branch)]
            torch.testing.assert_close(found, torch.where(branch.mask, expected, 0), atol=1e-5, rtol=0)
            assert mask[row].sum() == branch.mask.sum()


class Scorer(torch.nn.Module):
    """A head per view; notes which view it is told for every token."""

    def __init__(self, kind: str):
        super().__init__()
        self.model = build(kind).model
        self.head = torch.nn.Linear(32, 2, bias=False)
        self.told: list[Any] = []

    def read_as(self, token_views):
        self.told.append(token_views)

    def score(self, hidden, views=None):
        scores = self.head(hidden)
        return scores[:, 0] if views is None else scores[torch.arange(len(views)), views]


@pytest.mark.parametrize("kind", ["dense", "moe"])
@pytest.mark.parametrize("views", [None, torch.tensor([0, 1, 1, 0, 1, 0, 1, 1])])
def test_scores_and_their_gradients_equal_those_of_single_sequences(kind, views):
    scorer = Scorer(kind)
    trees = make_trees(scorer)
    scores = torch.zeros(8)
    packs = pack_trees(trees, token_budget=40)
    for packed in packs:
        values, router_logits = branch_scores(scorer, packed, views=views)
        assert router_logits is None
        scores[packed.rows] = values.detach()
        values.square().sum().backward()
    packed_gradients = {name: p.grad.clone() for name, p in scorer.named_parameters() if p.grad is not None}
    scorer.zero_grad()
    for row, (prompt, branch) in enumerate(branches_of(trees)):
        own = 0 if views is None else int(views[row])
        expected = single(scorer, prompt, branch)[-1] @ scorer.head.weight[own]
        torch.testing.assert_close(scores[row], expected.detach(), atol=1e-5, rtol=0)
        expected.square().backward()
    for name, parameter in scorer.named_parameters():
        if parameter.grad is not None:
            scale = max(1.0, parameter.grad.abs().max().item())
            torch.testing.assert_close(packed_gradients[name], parameter.grad, atol=1e-5 * scale, rtol=0, msg=name)
    if views is None:
        assert scorer.told == [None] * len(packs)
    else:
        assert [told.tolist() for told in scorer.told] == [token_views(p, views[p.rows]).tolist() for p in packs]


def test_router_logits_come_in_the_order_of_layers_and_tokens():
    """Of one tree with one branch, which is the sequence itself."""
    scorer = Scorer("moe")
    tree = make_trees(scorer)[3]
    [packed] = pack_trees([tree], token_budget=100)
    _, logits = branch_scores(scorer, packed, with_router=True)
    seen: list[torch.Tensor] = []
    gates = [layer.mlp.gate for layer in scorer.model.language_model.layers]
    for gate in gates:
        gate.register_forward_hook(lambda gate, inputs, output: seen.append(inputs[0] @ gate.weight.T))
    single(scorer, tree.prompt, tree.branches[0])
    assert logits is not None and len(logits) == len(seen) == 3
    for found, expected in zip(logits, seen, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_model_that_has_read_trees_still_reads_padded_sequences_as_before():
    model, fresh = build("dense"), build("dense")
    trees = make_trees(model)
    branch_logprobs(model, pack_trees(trees, token_budget=10_000)[0])
    token_ids = torch.tensor([[7, 8, 9, 10, 11], [12, 13, 14, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    found, expected = (m(input_ids=token_ids, attention_mask=mask, use_cache=False).logits for m in (model, fresh))
    assert torch.equal(found, expected)


def test_one_image_is_encoded_once_however_many_branches_share_it():
    model = build("dense")
    tree = make_trees(model)[0]
    [packed] = pack_trees([tree], token_budget=100)
    assert packed.image_grid_thw is not None
    assert packed.image_grid_thw.tolist() == [[1, 4, 4]]
    assert len(packed) == len(tree.prompt) + 5 + 1 + 9


def text_prompt(length: int) -> EncodedPrompt:
    return EncodedPrompt(torch.arange(length) + 6, torch.arange(length).expand(3, -1), length)


def test_a_branch_that_does_not_fit_beside_its_prompt_is_refused_and_never_cut():
    tree = PromptTree(text_prompt(6), (Branch.of([7] * 5),))
    with pytest.raises(DataError, match="exceed the token budget of 10"):
        pack_trees([tree], token_budget=10)
    assert len(pack_trees([tree], token_budget=11)[0]) == 11


def test_an_empty_branch_is_refused():
    with pytest.raises(DataError, match="branch 1 is empty"):
        pack_trees([PromptTree(text_prompt(2), (Branch.of([7]), Branch.of([])))], token_budget=10)


def test_views_of_tokens_by_hand():
    """A prompt of 2 with branches of 1 and 3, then a prompt of 1 with a branch of 2."""
    trees = [
        PromptTree(text_prompt(2), (Branch.of([7]), Branch.of([7, 8, 9]))),
        PromptTree(text_prompt(1), (Branch.of([7, 8]),)),
    ]
    [packed] = pack_trees(trees, token_budget=20)
    assert token_views(packed, torch.tensor([1, 0, 5])).tolist() == [-1, -1, 1, 0, 0, 0, -1, 5, 5]


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(
        st.tuples(st.integers(1, 8), st.lists(st.integers(1, 9), min_size=1, max_size=5)), min_size=1, max_size=6
    ),
    budget=st.integers(17, 60),
)
def test_packing_loses_nothing_and_keeps_the_budget(shapes, budget):
    counter = itertools.count(6)
    trees = [
        PromptTree(text_prompt(prompt), tuple(Branch.of([next(counter) for _ in range(length)]) for length in lengths))
        for prompt, lengths in shapes
    ]
    packs = pack_trees(trees, token_budget=budget)
    assert all(len(packed) <= budget for packed in packs)
    found = {}
    for packed in packs:
        assert packed.rows.tolist() == sorted(packed.rows.tolist())
        places = zip(
            packed.target_rows.tolist(), packed.target_columns.tolist(), packed.target_ids.tolist(), strict=True
        )
        for row, column, token in places:
            assert (row, column) not in found
            found[row, column] = token
        assert packed.input_ids[packed.end_positions].tolist() == [
            branches_of(trees)[row][1].token_ids[-1].item() for row in packed.rows.tolist()
        ]
        # Told to be of a view that is its own row, each branch is found whole, and prompts are of none.
        views = token_views(packed, packed.rows).tolist()
        told = {row: packed.input_ids[torch.tensor(views) == row].tolist() for row in set(views)}
        told.pop(-1)
        assert told == {row: branches_of(trees)[row][1].token_ids.tolist() for row in packed.rows.tolist()}
    expected = {
        (row, column): token
        for row, (_, branch) in enumerate(branches_of(trees))
        for column, token in enumerate(branch.token_ids.tolist())
    }
    assert found == expected
