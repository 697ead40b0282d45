"""Contradictions between settings, each told in one line that names the field."""

from pathlib import Path

import pytest

from prism.config import load_recipe
from prism.errors import ConfigError

DEMO = Path(__file__).with_name("example.toml")
NUM_EXPERTS = "discriminator.num_experts"
NO_STAGES = ["sft=none", "warmup=none", "align=none", "rlvr=none", "evaluation=none"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["align.group_size=1"], "align.group_size = 1: must be at least 2"),
        (["rlvr.group_size=1"], "rlvr.group_size = 1: must be at least 2"),
        (["discriminator.top_k=5"], "discriminator.top_k = 5: must not exceed num_experts (4)"),
        (["discriminator.type=text-only", "discriminator.top_k=5"], "discriminator.top_k = 5: must not exceed"),
        (["discriminator.type=whole-response", "discriminator.top_k=5"], "discriminator.top_k = 5: must not exceed"),
        (["discriminator.type=dedicated", "discriminator.top_k=3"], f"{NUM_EXPERTS} = 4: must be even and at least"),
        (["discriminator.type=dedicated", f"{NUM_EXPERTS}=5"], f"{NUM_EXPERTS} = 5: must be even and at least twice"),
        (["discriminator.type=dedicated", "discriminator.top_k=5"], "discriminator.top_k = 5: must not exceed"),
        (["discriminator.type=dense", f"{NUM_EXPERTS}=4"], f"unknown key {NUM_EXPERTS}; there are: dense"),
        (["discriminator.type=moe", "discriminator.width=2"], "unknown key discriminator.width; there are: dense"),
        (["discriminator.type=dense", "discriminator.width=0"], "discriminator.width = 0: must be greater than"),
        (
            ["discriminator.type=sparse"],
            'discriminator.type = "sparse": is unknown; there are: moe, dedicated, dense, text-only, whole-response',
        ),
        (
            ["discriminator.checkpoint=judge", "discriminator.dense=models/2b"],
            'discriminator.checkpoint = "judge": is trained already: leave out dense',
        ),
        (["align.token_budget=300"], "align.token_budget = 300: must be greater than max_response_tokens (320)"),
        (
            ["sft.token_budget=511"],
            "sft.token_budget = 511: must be at least max_prompt_tokens + sft.max_response_tokens",
        ),
        (["max_prompt_tokens=4000"], "sft.token_budget = 4096: must be at least"),
        (['rlvr.baselines=["grop"]'], 'rlvr.baselines = "grop": names no algorithm; there are: grpo, dapo, gspo'),
        (["align=none"], 'rlvr.baselines = ["grpo"]: a matched-budget baseline needs an [align] stage'),
        (
            ["audit.num_prompts=8", "align=none", "warmup=none", "rlvr.baselines=none"],
            "audit: there is no warmup or align stage whose data could be audited",
        ),
        (
            ["audit.every=8", "align=none", "rlvr.baselines=none"],
            "audit.every = 8: there is no [align] stage whose steps",
        ),
        (["audit.every=800"], "audit.every = 800: must not exceed align.num_steps"),
        (["rlvr.algorithms.dapo.name=grpo"], 'rlvr.algorithms.1.name = "grpo": is taken'),
        (["rlvr.algorithms.dapo.overlong_buffer=321"], "rlvr.algorithms.1.overlong_buffer = 321: must not exceed"),
        (["rlvr.algorithms=[]"], "rlvr.algorithms = []: must hold at least one algorithm"),
        (["rlvr.accuracy_weight=0"], "rlvr.accuracy_weight = 0: must be greater than 0"),
        (["rlvr.format_weight=-0.1"], "rlvr.format_weight = -0.1: must be greater than or equal to 0"),
        (["sft.num_epochs=1"], "sft.num_steps = 250: give either num_steps or num_epochs"),
        (["sft.num_steps=none"], "sft.num_steps: give either num_steps or num_epochs"),
        (["seeds=[]"], "seeds = []: must name at least one seed"),
        (["seeds=[1, 1]"], "seeds = [1, 1]: must name at least one seed, and each once"),
        (["data.public_fidelity.wrong=0.9"], "data.public_fidelity.vague = 0.12: together with wrong (0.9)"),
        (["data.public_fidelity.confused=0.81"], "data.public_fidelity.confused = 0.81: together with wrong and vague"),
        (["data.public=0", "data.curated=0"], "data.public = 0: public and curated must not both be 0"),
        (["sft.batch_size=3301"], "sft.batch_size = 3301: must not exceed data.public + data.curated (3300)"),
        (["warmup.num_heldout=385"], "warmup.num_heldout = 385: batch_size and num_heldout together"),
        (["align.prompts_per_step=401"], "align.prompts_per_step = 401: must not exceed data.alignment (400)"),
        (["rlvr.prompts_per_step=401"], "rlvr.prompts_per_step = 401: must not exceed data.rl (400)"),
        (["data.type=files"], "data.sft = []: the recipe's sft stage reads it"),
        (
            ["data.type=files", 'data.sft=["a"]'],
            "data.alignment: the recipe's second_sft, warmup or align stage reads it",
        ),
        (["data.type=files", "data.sft=['a']", "data.alignment=b"], "data.rl: the recipe's rlvr stage reads it"),
        (["base.path=x"], 'base.path = "x": says where the base is, of source "kept" and of no other'),
        (["base.source=kept"], "base.path: says where the base is"),
        (["data.type=files", "base.source=pretrain"], 'base.source = "pretrain": the tiny base is pretrained on'),
    ],
)
def test_a_contradiction_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(DEMO, overrides)
    assert str(caught.value).startswith(f"{DEMO}: {message}")


@pytest.mark.parametrize(
    "overrides",
    [
        ["discriminator.top_k=4"],
        ["discriminator.type=dedicated"],
        ["discriminator.type=dedicated", "discriminator.num_experts=6", "discriminator.top_k=3"],
        ["discriminator.checkpoint=judge"],
        ["sft.token_budget=512"],
        ["warmup.num_heldout=384"],
        ["rlvr.algorithms.dapo.overlong_buffer=320"],
        ["rlvr.baselines=[]"],
        ["rlvr.baselines=none", "align=none"],
        ["rlvr.format_weight=0"],
        ["data.type=files", *NO_STAGES],
    ],
)
def test_the_last_allowed_value_is_allowed(overrides: list[str]) -> None:
    assert load_recipe(DEMO, overrides).name == "tiny-demo"


def test_a_recipe_cannot_be_changed_once_read() -> None:
    recipe = load_recipe(DEMO)
    with pytest.raises(ValueError, match="frozen"):
        recipe.seeds = (1,)
