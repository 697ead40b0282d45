"""Which stages are the recipe's, and which are of an older one: against what the stages themselves record."""

import json
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ablation_runs import write
from prism.config import PlannedStage, Recipe, load_ablation, load_recipe, plan_stages
from prism.report.agreement import disagreements
from prism.report.completeness import left_over_parts, missing_parts
from prism.report.rundir import read_run
from prism.runtime.hashing import canonical_json
from prism.stages import align, base, datasets, evaluation, rlvr, sft, warmup, workspace
from prism.stages.workspace import Workspace

RECIPES = Path(__file__).parents[3] / "recipes"
ARCHIVES = Path(__file__).parents[3] / "benchmarks" / "results"
STAGES: dict[str, Callable[[Workspace, PlannedStage], None]] = {
    "base": base.run, "sft": sft.run, "warmup": warmup.run, "align": align.run, "rlvr": rlvr.run,
}  # fmt: skip
RLVR = {"sft-grpo", "prism-grpo", "prism-dapo", "prism-gspo"}
MakeRun = Callable[..., Path]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Recipe], tuple[dict, dict]]:
    """What the stages of a recipe write to their manifests before they do anything: those of stages and data, and
    those of evaluations."""
    found: list[dict[str, Any]] = []

    def open_run(directory: Path, **settings: Any) -> Any:
        steps = settings["num_steps"]
        config = json.loads(canonical_json(settings["config"]))
        found.append({"config": config} | ({} if callable(steps) else {"num_steps": steps}))
        return SimpleNamespace(is_complete=True)

    for module in (base, datasets, evaluation, workspace):
        monkeypatch.setattr(module, "StageRun", open_run)
    monkeypatch.setattr(Workspace, "input_hash", lambda *_: "0" * 64)
    monkeypatch.setattr(datasets, "_file_hashes", lambda _: {})

    def record(recipe: Recipe) -> tuple[dict, dict]:
        seed = Workspace(recipe, 0, tmp_path)
        manifests, evaluations = {"data": partial(datasets.prepare, seed)}, {}
        for stage in plan_stages(recipe):
            if stage.kind in STAGES:
                manifests[stage.name] = partial(STAGES[stage.kind], seed, stage)
            if stage.is_evaluated:
                evaluations[stage.name] = partial(evaluation.run, seed, stage)
        written = []
        for opened in (manifests, evaluations):
            written.append({})
            for name, run in opened.items():
                run()
                written[-1][name] = found.pop()
        return written[0], written[1]

    return record


def shipped_recipes() -> Iterator[Recipe]:
    for path in sorted(RECIPES.rglob("*.toml")):
        if path.parent.name == "ablations":
            yield next(iter(load_ablation(path).cells.values()))
        elif path.parent.name in ("tiny", "paper"):
            yield load_recipe(path)


def test_what_the_stages_of_every_shipped_recipe_record_agrees_with_it(
    recorded: Callable[[Recipe], tuple[dict, dict]],
) -> None:
    found = {recipe.name: disagreements(recipe, *recorded(recipe)) for recipe in shipped_recipes()}
    assert len(found) > 5 and not any(found.values()), found


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("sft.learning_rate=3e-4", {"sft"}),
        ("align.num_steps=7", {"align", "sft-grpo"}),
        ("rlvr.num_steps=9", RLVR),
        ("rlvr.algorithms.dapo.clip_high=0.3", {"prism-dapo"}),
        ("discriminator.score_clip=3.0", {"warmup", "align"}),
        ("discriminator.type=dense", {"warmup", "align"}),
        ("data.public=77", {"data"}),
        ("data.public_fidelity.wrong=0.3", {"data"}),
        ("base.source=pretrain", {"base"}),
        ("evaluation.num_samples=9", {"base", "sft", "align", *RLVR}),
        ("precision=bfloat16", {"sft", "warmup", "align", *RLVR}),
        ("lora.rank=4", {"sft", "warmup", "align", *RLVR}),
        ("threads=2", set()),
        ("align.checkpoint_every=3", set()),
        ("seeds=[4, 5]", set()),
    ],
)
def test_stages_of_a_recipe_that_has_changed_are_named(
    setting: str, names: set[str], recorded: Callable[[Recipe], tuple[dict, dict]]
) -> None:
    path, settings = RECIPES / "tiny" / "full.toml", ['rlvr.baselines=["grpo"]']
    old, new = load_recipe(path, settings), load_recipe(path, [*settings, setting])
    for recipe, of_other in ((new, recorded(old)), (old, recorded(new))):
        assert {line.split()[0] for line in disagreements(recipe, *of_other)} == names


def test_a_setting_that_an_older_version_did_not_know_had_its_default(
    recorded: Callable[[Recipe], tuple[dict, dict]],
) -> None:
    recipe = load_recipe(RECIPES / "tiny" / "demo.toml")
    manifests, evaluations = recorded(recipe)
    del manifests["data"]["config"]["public_fidelity"]["mutual"], manifests["align"]["config"]["AlignConfig"]["kl"]
    assert disagreements(recipe, manifests, evaluations) == []
    changed = load_recipe(RECIPES / "tiny" / "demo.toml", ["align.kl.coefficient=0.1"])
    assert disagreements(changed, manifests, evaluations) == ["align was made with align.kl=none"]


@pytest.mark.parametrize("path", sorted(ARCHIVES.glob("*effect/seed-0.tar.xz")), ids=lambda path: path.parent.name)
def test_archived_runs_of_older_versions_agree_with_their_recipes(path: Path, tmp_path: Path) -> None:
    with tarfile.open(path) as archive:
        members = [member for member in archive.getmembers() if not member.name.endswith((".jsonl", "summary.json"))]
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # which Python before 3.11.4 does not have
        archive.extractall(tmp_path, members=members)
    cells = sorted(tmp_path.glob("cells/*"))
    assert len(cells) > 2
    for cell in cells:
        run = read_run(cell)
        assert len(run.stages) > 2 and run.disagreements == {}


def linked(run: Path, **outputs: str) -> None:
    """Stages of seed 0 that have put out these models, each made from that of SFT but SFT itself."""
    for name, sha256 in outputs.items():
        path = run / "seed-0" / name / "manifest.json"
        manifest = json.loads(path.read_text()) | {"outputs": {"model": {"path": "model", "sha256": sha256}}}
        write(path, manifest | {"inputs": {} if name == "sft" else {"sft": "5f" * 32}})


def test_a_stage_that_went_on_from_what_is_no_longer_there_is_named(make_run: MakeRun) -> None:
    run = make_run(seeds=(0,))
    linked(run, sft="5f" * 32, align="a1" * 32)
    of_align = {"inputs": {"model": "a1" * 32, "data/test": "7e" * 32}, "config": {}}
    write(run / "seed-0" / "align" / "evaluation" / "manifest.json", of_align)
    assert missing_parts(read_run(run)) == []
    linked(run, sft="50" * 32)
    assert missing_parts(read_run(run)) == ["align was made from another sft than there is now"]
    linked(run, sft="5f" * 32, align="a2" * 32)
    assert missing_parts(read_run(run)) == ["the evaluation of align is of another model than there is now"]
    linked(run, align="a1" * 32)
    data = {"status": "complete", "outputs": {"test": {"path": "test.parquet", "sha256": "70" * 32}}, "inputs": {}}
    write(run / "seed-0" / "data" / "manifest.json", data)
    assert missing_parts(read_run(run)) == ["the evaluation of align is of another data/test than there is now"]


def record_steps(run: Path, seed: int, num_steps: int) -> None:
    path = run / f"seed-{seed}" / "align" / "manifest.json"
    write(path, json.loads(path.read_text()) | {"num_steps": num_steps})


def test_a_seed_of_an_older_recipe_is_left_out_and_named(make_run: MakeRun) -> None:
    """Three seeds were run, then the first one anew with other steps."""
    path = make_run(seeds=(0, 1, 2))
    for seed, num_steps in ((0, 40), (1, 80), (2, 40)):
        record_steps(path, seed, num_steps)
    write(path / "recipe.json", json.loads((path / "recipe.json").read_text()) | {"seeds": [0]})
    run = read_run(path)
    assert run.seeds == (0, 2), "seed 2 is of this very recipe"
    assert {seed for seed, _ in run.stages} == {0, 2} == set(run.teacher)
    assert missing_parts(run) == []
    assert left_over_parts(run) == ["Seed 1 is left out: of another recipe: align was made with align.num_steps=80"]


def test_what_a_seed_that_was_given_up_lacks_is_no_gap(make_run: MakeRun) -> None:
    path = make_run(seeds=(0, 1, 2))
    write(path / "recipe.json", json.loads((path / "recipe.json").read_text()) | {"seeds": [0]})
    write(path / "seed-1" / "failure.json", {"error": "no valid rollout"})
    (path / "seed-2" / "prism-gspo" / "manifest.json").unlink()
    run = read_run(path)
    assert (run.seeds, missing_parts(run)) == ((0,), [])
    assert left_over_parts(run) == [
        "Seed 1 is left out: ended with an error: no valid rollout",
        "Seed 2 is left out: not finished: prism-gspo",
    ]


def test_a_seed_of_the_recipe_that_is_of_another_one_is_told(make_run: MakeRun) -> None:
    path = make_run(seeds=(0, 1))
    record_steps(path, 1, 80)
    assert missing_parts(read_run(path)) == ["align was made with align.num_steps=80, seed 1"]
