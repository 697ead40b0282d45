"""The forms of the advantage in alignment, hybrids and what they are hybrids of."""

from pathlib import Path

import pytest

from prism.config import (
    AddedAdvantage,
    AlignConfig,
    BranchAdvantage,
    GatedAdvantage,
    MixedAdvantage,
    SignAwareAdvantage,
    load_recipe,
)
from prism.errors import ConfigError

DEMO = Path(__file__).with_name("example.toml")


def advantage_of(*overrides: str) -> object:
    recipe = load_recipe(DEMO, overrides)
    assert recipe.align is not None
    return recipe.align.advantage


def test_the_papers_game_does_not_ask_for_answers() -> None:
    assert isinstance(AlignConfig(num_steps=1).advantage, BranchAdvantage)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('{type="added"}', AddedAdvantage(base=BranchAdvantage(alpha=0.5, format_penalty=1.5), weight=1.0, eps=1e-6)),
        ('{type="gated"}', GatedAdvantage(base=BranchAdvantage(alpha=0.5, format_penalty=1.5))),
        ('{type="sign-aware"}', SignAwareAdvantage(base=BranchAdvantage(alpha=0.5, format_penalty=1.5))),
        (
            '{type="added", weight=2, eps=0.05, base={type="mixed", alpha=0.25}}',
            AddedAdvantage(base=MixedAdvantage(alpha=0.25), weight=2.0, eps=0.05),
        ),
        ('{type="gated", base={type="mixed"}}', GatedAdvantage(base=MixedAdvantage())),
        (
            '{type="sign-aware", base={type="branch", format_penalty=0}}',
            SignAwareAdvantage(base=BranchAdvantage(format_penalty=0.0)),
        ),
        ('{type="gated", base={alpha=1}}', GatedAdvantage(base=BranchAdvantage(alpha=1.0))),
    ],
)
def test_a_hybrid_names_its_base(written: str, expected: object) -> None:
    assert advantage_of(f"align.advantage={written}") == expected


def test_the_settings_of_a_base_can_be_overridden() -> None:
    assert advantage_of(
        "align.advantage.type=sign-aware", "align.advantage.base.type=mixed", "align.advantage.base.alpha=0"
    ) == SignAwareAdvantage(base=MixedAdvantage(alpha=0.0))


def test_the_resolved_configuration_keeps_hybrid_and_base(tmp_path: Path) -> None:
    recipe = load_recipe(DEMO, ['align.advantage={type="added", weight=0.5, base={type="mixed"}}'])
    path = tmp_path / "recipe.json"
    path.write_text(recipe.model_dump_json(), encoding="utf-8")
    assert load_recipe(path) == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("align.advantage.type=gate", 'align.advantage.type = "gate": is unknown; did you mean gated?'),
        ("align.advantage.type=sign_aware", 'align.advantage.type = "sign_aware": is unknown; did you mean'),
        ('align.advantage={type="added", weight=0}', "align.advantage.weight = 0: must be greater than 0"),
        ('align.advantage={type="added", eps=0}', "align.advantage.eps = 0: must be greater than 0"),
        ('align.advantage={type="gated", weight=1}', "unknown key align.advantage.weight; there are: type, base"),
        (
            'align.advantage={type="gated", base={type="added"}}',
            'align.advantage.base.type = "added": is unknown; there are: branch, mixed',
        ),
        (
            'align.advantage={type="gated", base={type="mixed", format_penalty=1}}',
            "unknown key align.advantage.base.format_penalty; there are: type, alpha, eps",
        ),
        (
            'align.advantage={type="sign-aware", base={alpha=1.5}}',
            "align.advantage.base.alpha = 1.5: must be less than or equal to 1",
        ),
    ],
)
def test_a_wrong_form_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(DEMO, [override])
    assert str(caught.value).startswith(f"{DEMO}: {message}")
