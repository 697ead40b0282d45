"""Which recipes an ablation is made of."""

from pathlib import Path

import pytest

from prism.config import DenseDiscriminator, TextOnlyDiscriminator, load_ablation, load_recipe
from prism.errors import ConfigError

FULL = Path(__file__).parents[3] / "recipes" / "tiny" / "full.toml"


def test_the_papers_cells_change_one_thing_each(tmp_path: Path) -> None:
    settings = ["discriminator.dense=models/2B", "discriminator.num_experts=8", "discriminator.score_clip=5.0"]
    ablation = load_ablation(FULL, settings, output=tmp_path)
    full = ablation.cells[ablation.reference]
    assert full == load_recipe(FULL, [*settings, "rlvr.baselines=[]", "name=full", f"output={tmp_path / 'cells/full'}"])
    assert full.align is not None and full.rlvr is not None
    changed = {
        name: {key for key in type(full).model_fields if getattr(cell, key) != getattr(full, key)} - {"name", "output"}
        for name, cell in ablation.cells.items()
    }
    assert changed["dense"] == changed["text-only"] == {"discriminator"}
    assert changed["no-warmup"] == {"warmup"} and changed["no-sft"] == {"sft"} and changed["small-sft"] == {"data"}
    assert all(changed[name] == {"align"} for name in ("alpha-0.0", "alpha-0.25", "alpha-0.75", "alpha-1.0", "kl"))
    assert changed["no-alignment"] == {"align", "warmup", "rlvr"}
    assert changed["no-alignment-same-updates"] == {"align", "warmup"}
    matched = ablation.cells["no-alignment"].rlvr
    assert matched is not None and matched.num_steps == full.rlvr.num_steps + full.align.num_steps


def test_a_recipe_that_audits_itself_has_the_same_cells(tmp_path: Path) -> None:
    plain, audited = (
        load_ablation(FULL, settings, output=tmp_path).cells for settings in ((), ("audit.num_prompts=32",))
    )
    assert list(plain) == list(audited)
    assert {name for name, cell in audited.items() if not cell.audit} == {"no-alignment", "no-alignment-same-updates"}


def test_another_mode_keeps_what_it_knows_of_the_discriminator(tmp_path: Path) -> None:
    settings = ["discriminator.dense=models/2B", "discriminator.num_experts=8", "discriminator.score_clip=5.0"]
    cells = load_ablation(FULL, settings, output=tmp_path).cells
    dense, blind = cells["dense"].discriminator, cells["text-only"].discriminator
    assert isinstance(dense, DenseDiscriminator) and isinstance(blind, TextOnlyDiscriminator)
    assert (dense.dense, dense.score_clip) == (blind.dense, blind.score_clip) == (Path("models/2B"), 5.0)
    assert blind.num_experts == 8


def test_cells_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        f'name = "mine"\nrecipe = "{FULL}"\nreference = "slow"\nsettings = ["seeds=[5]"]\n'
        '[cells]\nslow = []\nfast = ["rlvr.learning_rate=1e-4"]\n'
    )
    ablation = load_ablation(file)
    assert ablation.directory == Path("runs/mine") and list(ablation.cells) == ["slow", "fast"]
    rates = [cell.rlvr.learning_rate for cell in ablation.cells.values() if cell.rlvr]
    unchanged = load_recipe(FULL).rlvr
    assert unchanged is not None and unchanged.learning_rate != 1e-4
    assert rates == [unchanged.learning_rate, 1e-4] and ablation.cells["fast"].seeds == (5,)


def test_cells_are_chosen_by_name_in_their_own_order(tmp_path: Path) -> None:
    whole = load_ablation(FULL, output=tmp_path)
    ablation = load_ablation(FULL, output=tmp_path, chosen=["text-only", "dense"])
    assert ablation.cells == {name: whole.cells[name] for name in ("dense", "text-only")}
    assert list(ablation.cells) == ["dense", "text-only"]
    assert ablation.names == whole.names == tuple(whole.cells)
    with pytest.raises(ConfigError, match="there is no cell 'dens'; there are: full, "):
        load_ablation(FULL, output=tmp_path, chosen=["dense", "dens"])


def test_a_cell_that_is_not_chosen_is_not_made(tmp_path: Path) -> None:
    """Without RLVR its settings would contradict it."""
    file = tmp_path / "mine.toml"
    file.write_text(f'name = "mine"\nrecipe = "{FULL}"\n[cells]\nfull = []\nlong = ["rlvr.num_steps=80"]\n')
    assert list(load_ablation(file, ["rlvr=none"], chosen=["full"]).cells) == ["full"]
    with pytest.raises(ConfigError, match="cell long"):
        load_ablation(file, ["rlvr=none"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('reference = "other"\n[cells]\none = []\n', "there is no cell 'other'"),
        ('reference = "one"\n[cells]\none = ["align.num_stepps=3"]\n', "cell one: unknown key align.num_stepps"),
        ('reference = "one"\n[cells]\n"a/b" = []\n', "cells"),
    ],
)
def test_mistakes_are_told_with_their_cell(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'name = "mine"\nrecipe = "{FULL}"\n{text}')
    with pytest.raises(ConfigError, match=words):
        load_ablation(file)


@pytest.mark.parametrize("path", sorted((FULL.parents[1] / "ablations").glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_ablation_loads(path: Path) -> None:
    """Its cells differ from each other, and all of them from seed to seed alike."""
    ablation = load_ablation(path)
    cells = [recipe.model_dump(exclude={"name", "output"}) for recipe in ablation.cells.values()]
    assert all(cell not in cells[:place] for place, cell in enumerate(cells))
    assert len({recipe.seeds for recipe in ablation.cells.values()}) == 1
