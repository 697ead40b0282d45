"""Which recipes an ablation is made of."""

from pathlib import Path

import pytest

from prism.config import (
    DenseDiscriminator,
    FilesData,
    MoeDiscriminator,
    TextOnlyDiscriminator,
    load_ablation,
    load_recipe,
    matched_steps,
)
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
    modes = ("dense", "text-only", "whole-response", "dedicated")
    assert all(changed[mode] == {"discriminator"} for mode in modes)
    assert changed["no-warmup"] == {"warmup"} and changed["no-sft"] == {"sft"} and changed["small-sft"] == {"data"}
    assert all(changed[name] == {"align"} for name in ("alpha-0.0", "alpha-0.25", "alpha-0.75", "alpha-1.0", "kl"))
    assert changed["no-alignment"] == {"align", "warmup", "rlvr"}
    assert changed["no-alignment-same-updates"] == {"align", "warmup"}
    assert changed["second-sft"] == {"align", "warmup", "rlvr", "second_sft"}
    matched, second = ablation.cells["no-alignment"].rlvr, ablation.cells["second-sft"]
    assert matched is not None and matched.num_steps == matched_steps(full) and second.rlvr == matched
    assert full.sft is not None and second.second_sft is not None and second.second_sft.num_epochs == 1
    assert second.second_sft == full.sft.model_copy(update={"num_steps": None, "num_epochs": 1})
    # The recipe's own mode and α are the reference.
    assert "moe" not in ablation.names and "alpha-0.5" not in ablation.names and not ablation.omitted
    assert ablation.alike == {"moe", "alpha-0.5"}
    with pytest.raises(ConfigError, match="--cell moe: the recipe is that already: its cell is 'full'"):
        load_ablation(FULL, output=tmp_path, chosen=["moe"])


def test_what_a_recipe_has_already_is_its_reference(tmp_path: Path) -> None:
    dense = load_ablation(FULL, ["discriminator.type=dense", "align.advantage.alpha=0.25"], output=tmp_path)
    assert "dense" not in dense.names and {"moe", "text-only", "alpha-0.5"} <= set(dense.names)
    assert "alpha-0.25" not in dense.names and not {"no-warmup", "no-sft"} - set(dense.names)
    bare = load_ablation(FULL, ["sft=none", "warmup=none"], output=tmp_path)
    assert not {"no-warmup", "no-sft", "small-sft", "second-sft"} & set(bare.names)
    twice = load_ablation(FULL, ["second_sft={num_steps=9,max_response_tokens=240,token_budget=640}"], output=tmp_path)
    assert "second-sft" not in twice.names and "second-sft" not in twice.omitted
    second = twice.cells["no-alignment"].second_sft
    assert second is not None and second.num_steps == 9


def test_another_mode_has_the_same_active_compute(tmp_path: Path) -> None:
    experts = ["discriminator.num_experts=8", "discriminator.top_k=4"]
    dense = load_ablation(FULL, experts, output=tmp_path).cells["dense"].discriminator
    assert isinstance(dense, DenseDiscriminator) and dense.width == 4
    wide = ["discriminator.type=dense", "discriminator.width=1"]
    moe = load_ablation(FULL, wide, output=tmp_path).cells["moe"].discriminator
    assert isinstance(moe, MoeDiscriminator) and moe.top_k == 1


@pytest.mark.parametrize("form", ["branch", "mixed", "added", "gated", "sign-aware"])
def test_every_advantage_has_cells_for_alpha(form: str, tmp_path: Path) -> None:
    ablation = load_ablation(FULL, [f'align.advantage={{type="{form}"}}'], output=tmp_path)
    shares = []
    for name in ("alpha-0.0", "alpha-0.25", "alpha-0.75", "alpha-1.0"):
        align = ablation.cells[name].align
        assert align is not None and align.advantage.type == form
        chosen = align.advantage.model_dump()
        shares.append(chosen.get("base", chosen)["alpha"])
    assert shares == [0.0, 0.25, 0.75, 1.0]


def test_a_cell_that_the_recipe_cannot_have_is_left_out_and_named(tmp_path: Path) -> None:
    ablation = load_ablation(FULL, ["discriminator.num_experts=3"], output=tmp_path)
    assert list(ablation.omitted) == ["dedicated"] and "dedicated" not in ablation.names
    assert "must be even" in ablation.omitted["dedicated"]
    with pytest.raises(ConfigError, match=r"--cell dedicated: .*must be even"):
        load_ablation(FULL, ["discriminator.num_experts=3"], output=tmp_path, chosen=["dedicated"])


def test_cells_that_would_compare_nothing_are_left_out_with_the_reason(tmp_path: Path) -> None:
    whole = load_ablation(FULL, ["discriminator.type=whole-response"], output=tmp_path)
    assert set(whole.omitted) == {f"alpha-{share}" for share in ("0.0", "0.25", "0.5", "0.75", "1.0")}
    assert "moe" in whole.names and "nothing that α could weigh" in whole.omitted["alpha-0.0"]
    trained = load_ablation(FULL, ["discriminator.checkpoint=models/judge", "warmup=none"], output=tmp_path)
    assert set(trained.omitted) == {"dense", "text-only", "whole-response", "dedicated"}
    with pytest.raises(ConfigError, match=r"cell dense: discriminator\.checkpoint is trained in a mode of its own"):
        load_ablation(FULL, ["discriminator.checkpoint=models/judge"], output=tmp_path, chosen=["dense"])


def test_small_sft_of_files_takes_the_last(tmp_path: Path) -> None:
    cells = load_ablation(FULL.parents[1] / "paper" / "qwen3-vl-4b.toml", output=tmp_path).cells
    small, full = cells["small-sft"].data, cells["full"].data
    assert isinstance(small, FilesData) and isinstance(full, FilesData)
    assert small.sft == full.sft[-1:] == (Path("data/curated.parquet"),) and len(full.sft) == 2


def test_a_recipe_that_audits_itself_has_the_same_cells(tmp_path: Path) -> None:
    plain, audited = (
        load_ablation(FULL, settings, output=tmp_path).cells for settings in ((), ("audit.num_prompts=32",))
    )
    assert list(plain) == list(audited)
    unaligned = {"no-alignment", "no-alignment-same-updates", "second-sft"}
    assert {name for name, cell in audited.items() if not cell.audit} == unaligned


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


@pytest.mark.parametrize("setting", ["output=/x", 'output="runs/mine"', "output=none"])
def test_a_place_for_the_cells_is_refused_with_the_way_to_name_one(setting: str, tmp_path: Path) -> None:
    """It would do nothing: every cell is given its own."""
    words = "has a directory of its own below the ablation's, which --output names"
    with pytest.raises(ConfigError, match=f"override '{setting}'.*{words}".replace('"', '["\\\\]+')):
        load_ablation(FULL, [setting])
    file = tmp_path / "mine.toml"
    for text in (f"settings = ['{setting}']\n[cells]\nfull = []\n", f"[cells]\nfull = ['{setting}']\n"):
        file.write_text(f'name = "mine"\nrecipe = "{FULL}"\n{text}')
        with pytest.raises(ConfigError, match=words):
            load_ablation(file)


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
    ablation = load_ablation(file, ["rlvr=none"], chosen=["full"])
    assert list(ablation.cells) == list(ablation.recipes) == ["full"]
    assert list(load_ablation(file, chosen=["full"]).recipes) == ["full", "long"], "to tell what is left over of it"
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
