"""`prism data verify` and `decontaminate`, from the command line to the report."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from curated_rows import fill
from prism.cli import main
from prism.curation import Row, Store
from prism.curation.importing import import_file
from prism.data.world.datasets import CURATED, FAITHFUL, demonstrations
from prism.data.writers import write_verl_parquet

HOSTILE = "<img src=x onerror=alert(1)>{{7*7}}${jndi:ldap://x}';DROP TABLE rows;--"


def test_verify_removes_what_does_not_hold_what_is_held_out_and_what_is_there_twice(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = list(demonstrations("world", CURATED, FAITHFUL, 12, seed=5))
    rows = [Row(f"made/{n}", replace(e.prompt, id=str(n)), e.completion) for n, e in enumerate(examples)]
    first = rows[0]
    rows.append(replace(first, id="made/again", prompt=replace(first.prompt, id="again")))
    wrong = replace(rows[1].prompt, id="wrong", answer="wrong")
    rows.append(Row("made/wrong", wrong, f"<caption>{HOSTILE}, b</caption><think>c</think><answer>{HOSTILE}</answer>"))
    fill(store, rows)
    write_verl_parquet(tmp_path / "held.parquet", [examples[5].prompt])
    (tmp_path / "verify.toml").write_text(f'against = [{{ name = "held", path = "{tmp_path}/held.parquet" }}]')
    report = tmp_path / "report.json"
    command = ["data", "verify", str(store.directory), str(tmp_path / "verify.toml"), "--report", str(report)]
    assert main(command) == 0
    assert "verify: 14 in, 13 kept, 0 passed, 1 dropped" in capsys.readouterr().out
    assert len(list(store.rows())) == 11
    found = json.loads(report.read_text())
    assert {step: sum(values["dropped"].values()) for step, values in found.items()} == {
        "verify": 1,
        "decontaminate": 1,
        "dedup": 1,
    }
    [example] = found["verify"]["examples"]["no demonstration's answer is right"]
    assert example["id"] == "made/wrong" and "DROP TABLE" in example["detail"]
    [held] = found["decontaminate"]["examples"]["has a picture of an evaluation item"]
    assert held["id"] == "made/5" and held["evidence"]["item"].startswith("held/")
    [(_, [again])] = found["dedup"]["examples"].items()
    assert {again["id"], again["evidence"]["duplicate_of"]} == {"made/0", "made/again"}
    # Nothing is left to do, and the same command says the same.
    assert main(command) == 0
    assert json.loads(report.read_text()) == found


def test_decontaminate_alone_and_a_set_that_is_not_there(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [example] = demonstrations("world", CURATED, FAITHFUL, 1, seed=5)
    write_verl_parquet(tmp_path / "rows.parquet", [example.prompt])
    import_file(store, tmp_path / "rows.parquet")
    recipe = tmp_path / "decontaminate.toml"
    recipe.write_text(f'against = [{{ name = "held", path = "{tmp_path}/rows.parquet" }}]')
    assert main(["data", "decontaminate", str(store.directory), str(recipe)]) == 0
    assert "1 dropped: has a picture of an evaluation item" in capsys.readouterr().out
    recipe.write_text('against = [{ name = "held" }]')
    assert main(["data", "decontaminate", str(store.directory), str(recipe)]) == 2
    assert "'held' is none of the benchmarks" in capsys.readouterr().err
    recipe.write_text('against = [{ name = "held", path = "nowhere.jsonl" }]')
    assert main(["data", "decontaminate", str(store.directory), str(recipe)]) == 2
    assert "nowhere.jsonl" in capsys.readouterr().err
