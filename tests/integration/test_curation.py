"""From raw problems to training files: a student in this project's own engine, a teacher over real HTTP that fails in
every way, and processes that are killed at random moments."""

import os
import random
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from curated_rows import num_outcomes
from curated_world import teaching, world_store, write_script
from prism.cli import main
from prism.curation import Store, count_import, count_step
from prism.curation.rows import Outcome
from prism.curation.spending import read_ledger
from prism.data.images import read_bytes
from prism.data.readers import read_examples, read_pairs, read_prompts
from prism.data.world.datasets import CURATED, FAITHFUL, demonstrations
from prism.data.writers import write_verl_parquet
from prism.records import Example, ImageSource
from prism.rewards import parse_response
from prism.stages.workspace import SHIPPED_BASE

RATES = {
    "429": 0.02,
    "500": 0.03,
    "timeout": 0.002,
    "cut": 0.02,
    "gateway": 0.01,
    "malformed": 0.05,
    "wrong": 0.1,
    "refusal": 0.03,
    "filtered": 0.01,
    "safety": 0.01,
    "truncated": 0.02,
    "slow": 0.02,
    "400": 0.01,
}
MEANING = {
    "429": "rate limit",
    "500": "server error",
    "timeout": "time-out",
    "cut": "cut",
    "gateway": "time-out",
    "400": "refused request",
} | dict.fromkeys(("ok", "malformed", "wrong", "refusal", "filtered", "safety", "truncated", "slow"), "answered")
PRICE = {"prompt": 0.5, "completion": 3.0}
CONCURRENCY, MAX_TOKENS = 32, 1024
WRONG_ANSWER = "<answer>99999</answer>"
RECIPES = {
    "difficulty": f"""
num_samples = 4
wave = 2
max_response_tokens = 240
models = [{{ type = "checkpoint", path = "{SHIPPED_BASE}" }}]
""",
    "teach": f"""
num_samples = 2
max_response_tokens = {MAX_TOKENS}
[teacher]
base_url = "set by the test"
model = "scripted"
concurrency = {CONCURRENCY}
timeout_s = 6.0
backoff_s = 0.05
[budget]
price = {{ prompt = {PRICE["prompt"]}, completion = {PRICE["completion"]} }}
""",
    "verify": 'against = [{ name = "held", path = "HERE/held.parquet" }]',
    "pairs": """
num_samples = 2
max_response_tokens = 240
model = { type = "checkpoint", path = "HERE/run/seed-0/sft/model" }
""",
}
STEPS = ("difficulty", "teach", "verify", "decontaminate", "dedup", "split", "pairs")


def arguments(store: Store, step: str, *options: str) -> list[str]:
    """Of `prism`; a step with a recipe gets that of `RECIPES`."""
    directory, recipe = store.directory.parent, []
    if step in RECIPES:
        recipe = [str(directory / f"{step}.toml")]
        Path(*recipe).write_text(RECIPES[step].replace("HERE", str(directory)))
    return ["data", step, str(store.directory), *recipe, *options]


def start(store: Store, step: str, *options: str) -> subprocess.Popen[str]:
    """In a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "prism", *arguments(store, step, *options)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(store: Store, step: str, *options: str) -> None:
    assert main(arguments(store, step, *options)) == 0


def finish(process: subprocess.Popen[str]) -> str:
    said, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    return said


def kill_after(process: subprocess.Popen[str], progress: Callable[[], int], more: int, every_s: float = 0.003) -> bool:
    """Kills it when `progress` is so much more than now; whether it was still at work then."""
    target = progress() + more
    while progress() < target:
        if process.poll() is not None:
            finish(process)
            return False
        time.sleep(every_s)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return True


def cost_of(entries: Iterable[dict[str, Any]]) -> float:
    tokens = [(entry.get("prompt_tokens", 0), entry.get("completion_tokens", 0)) for entry in entries]
    return sum(prompt * PRICE["prompt"] + completion * PRICE["completion"] for prompt, completion in tokens) / 1e6


@dataclass(frozen=True)
class Raw:
    """Problems before any step, by what their pictures show. `copied` are there twice, `held` in an evaluation set."""

    store: Store
    script: Path
    examples: dict[str, Example]
    copied: frozenset[str]
    held: frozenset[str]


def picture_of(image: ImageSource) -> str:
    """Equal for equal pixels."""
    pixels = Image.open(BytesIO(read_bytes(image))).convert("RGB")
    return sha256(pixels.tobytes()).hexdigest()


def encoded_anew(example: Example) -> Example:
    [image] = example.prompt.images
    buffer = BytesIO()
    Image.open(BytesIO(read_bytes(image))).save(buffer, "PNG", compress_level=1)
    prompt = replace(example.prompt, id=f"{example.prompt.id}-again", images=(ImageSource(data=buffer.getvalue()),))
    return replace(example, prompt=prompt)


def raw_problems(directory: Path, count: int) -> Raw:
    originals = list(demonstrations("world", CURATED, FAITHFUL, count, seed=5))
    examples = {picture_of(example.prompt.images[0]): example for example in originals}
    assert len(examples) == count
    names, num_planted = list(examples), max(10, count // 20)
    copied, held = names[:num_planted], names[num_planted : 2 * num_planted]
    raw = [*originals, *(encoded_anew(examples[name]) for name in copied)]
    write_verl_parquet(directory / "problems.parquet", (example.prompt for example in raw))
    write_verl_parquet(directory / "held.parquet", (examples[name].prompt for name in held))
    assert main(["data", "import", str(directory / "store"), str(directory / "problems.parquet")]) == 0
    store = Store(directory / "store")
    assert count_import(store)["problems"].num_kept == len(raw)
    return Raw(store, write_script(directory, raw), examples, frozenset(copied), frozenset(held))


@pytest.mark.parametrize(
    ("num_problems", "num_kills", "sft_steps"),
    [(120, 2, 2), pytest.param(2000, 10, 250, marks=pytest.mark.slow)],
    ids=["short", "long"],
)
def test_raw_problems_become_training_files(tmp_path: Path, num_problems: int, num_kills: int, sft_steps: int) -> None:
    """Teach is killed `num_kills` times, of the long run the other steps too."""
    raw = raw_problems(tmp_path, num_problems)
    store, moments = raw.store, random.Random(num_problems)

    def run_killed(step: str, *counted: str) -> None:
        def progress() -> int:
            return sum(num_outcomes(store, each) for each in counted or (step,))

        was_at_work = []
        for _ in range(num_kills // 5):
            more = moments.randint(1, num_problems * len(counted or (step,)) // 5)
            was_at_work.append(kill_after(start(store, step), progress, more, every_s=0.05))
        assert any(was_at_work) or not was_at_work
        run(store, step)

    run_killed("difficulty")
    check_sets(store)
    teach(raw, tmp_path, num_kills, moments)
    run_killed("verify", "verify", "decontaminate", "dedup")
    run(store, "split", f"alignment={num_problems // 4}", f"rl={num_problems // 10}")
    run(store, "export", str(tmp_path / "before"), "--format", "sharegpt")
    train_student(tmp_path, sft_steps)
    run_killed("pairs")
    if sft_steps > 100:  # a student that has learned the format
        assert count_step(store, "pairs").num_kept > num_problems / 8
    run(store, "stats")
    run(store, "export", str(tmp_path / "out"), "--format", "verl", "--format", "pairs")
    check_drops(raw)
    check_files(raw, tmp_path / "out")


def train_student(directory: Path, num_steps: int) -> None:
    """SFT of the shipped base on what was exported."""
    recipe = directory / "sft.toml"
    demo = tomllib.loads((Path(__file__).parents[2] / "recipes/tiny/demo.toml").read_text())["sft"]
    sft = "\n".join(f"{name} = {value}" for name, value in (demo | {"num_steps": num_steps}).items())
    base = '[base]\ntype = "tiny"\nsource = "shipped"'
    name = f'name = "curated"\nmax_prompt_tokens = 160\noutput = "{directory / "run"}"'
    table = (directory / "before" / "data.toml").read_text()
    recipe.write_text("\n".join((name, base, "[sft]", sft, table)))
    assert main(["run", str(recipe), "--stop-after", "sft"]) == 0


def check_sets(store: Store) -> None:
    sets = Counter()
    for outcome in store.outcomes("difficulty"):
        found = outcome.findings
        sets[found["set"]] += 1
        assert found["num_samples"] in (2, 4)
        if found["set"] == "hard":
            assert (found["num_correct"], found["num_samples"]) == (0, 4)
    assert sets["hard"] > sets["rl"] > 0, sets


def teach(raw: Raw, directory: Path, num_kills: int, moments: random.Random) -> None:
    """The step, killed `num_kills` times, and its books against the server's."""
    store = raw.store
    num_hard = sum(outcome.findings["set"] == "hard" for outcome in store.outcomes("difficulty"))
    with teaching(directory, raw.script, RATES) as teacher:
        address = f"teacher.base_url={teacher.base_url}"
        for _ in range(num_kills):
            each = 2 * num_hard // (num_kills + 1)
            was_killed = kill_after(
                start(store, "teach", address), teacher.count, moments.randint(max(1, each // 4), each)
            )
            assert was_killed
        said = finish(start(store, "teach", address))
        log = {entry["id"]: entry for entry in teacher.log()}
        assert len(log) == teacher.count()  # every request under a name of its own
    check_ledger({row["name"]: dict(row) for row in read_ledger(store)}, log, num_hard, num_kills)
    funnel = count_step(store, "teach")
    assert funnel.num_pending == 0 and funnel.num_in == funnel.num_kept + sum(
        (*funnel.dropped.values(), *funnel.passed.values())
    )
    assert f"teach: {funnel.num_in:,} in" in said and "requests:" in said
    answered = {row["name"] for row in read_ledger(store) if row["outcome"] == "answered"}
    check_samples(raw, sum(entry["does"] == "wrong" for name, entry in log.items() if name in answered))


def check_ledger(
    ledger: dict[str, dict[str, Any]], log: dict[str, dict[str, Any]], num_hard: int, num_kills: int
) -> None:
    # To the request, but for what was under way at a kill: the ledger has what the server saw, and else only what was
    # begun and not sent: by processes that were killed first, or, on a machine that stands still for seconds, ran out
    # of time.
    assert log.keys() <= ledger.keys()
    in_doubt = {name for name, row in ledger.items() if row["outcome"] == "in doubt"}
    assert len(in_doubt) <= num_kills * CONCURRENCY
    assert {ledger[name]["outcome"] for name in ledger.keys() - log.keys()} <= {"in doubt", "time-out"}
    for name in log.keys() - in_doubt:
        row, entry = ledger[name], log[name]
        assert row["outcome"] == MEANING[entry["does"]], (row, entry)
        if row["outcome"] == "answered":
            assert (row["prompt_tokens"], row["completion_tokens"]) == (100, entry["completion_tokens"])
            assert not row["is_estimate"]
    assert sum(row["cost"] for row in ledger.values()) >= cost_of(log.values())

    # No request is paid for twice: neither what was answered nor what got lost on its way.
    paid = Counter(ledger[name]["request"] for name, entry in log.items() if "completion_tokens" in entry)
    assert len(paid) > num_hard and max(paid.values()) == 1


def check_samples(raw: Raw, num_answered_wrong: int) -> None:
    """Every sample is the teacher's, word for word, but for those it got wrong on purpose, all of which are there."""
    num_wrong = num_samples = 0
    for row in raw.store.rows():
        for sample in row.findings.get("teach", {}).get("samples", ()):
            assert parse_response(sample["text"]).is_valid
            num_samples += 1
            num_wrong += WRONG_ANSWER in sample["text"]
            [image] = row.prompt.images
            assert WRONG_ANSWER in sample["text"] or sample["text"] == raw.examples[picture_of(image)].completion
    assert num_wrong == num_answered_wrong and 0.04 < num_wrong / num_samples < 0.2


def check_drops(raw: Raw) -> None:
    """Every row is in the end there, or was dropped once, for a reason that is true of it."""
    store = raw.store
    pictures = {row.id: picture_of(row.prompt.images[0]) for row in store.rows(before=STEPS[0])}
    taught = {outcome.row_id: outcome.findings.get("samples", ()) for outcome in store.outcomes("teach")}
    dropped: dict[str, str] = {}
    for step in STEPS:
        funnel = count_step(store, step)
        assert funnel.num_pending == 0 and funnel.num_in == len(pictures) - len(dropped), step
        for outcome in store.outcomes(step):
            if outcome.status == "dropped":
                assert outcome.reason and outcome.row_id not in dropped
                dropped[outcome.row_id] = step
                samples = [sample["text"] for sample in taught.get(outcome.row_id, ())]
                check_reason(raw, step, outcome, pictures, samples)
    left = Counter(pictures[row.id] for row in store.rows())
    assert left.total() == len(pictures) - len(dropped)
    assert not left.keys() & raw.held and max(left.values()) == 1
    assert {"teach", "verify", "decontaminate", "dedup"} >= set(dropped.values()) - {"split"}
    assert {"decontaminate", "dedup"} <= set(dropped.values())


def check_reason(raw: Raw, step: str, outcome: Outcome, pictures: dict[str, str], samples: list[str]) -> None:
    picture = pictures[outcome.row_id]
    if step == "teach":
        assert not samples
    elif step == "verify":
        assert samples and all(WRONG_ANSWER in text for text in samples)
    elif step == "decontaminate":
        assert picture in raw.held
    elif step == "dedup":
        assert picture in raw.copied and pictures[outcome.findings["duplicate_of"]] == picture
    else:
        assert step == "split" and not samples  # an RL problem for which there was no room, or one between the sets


def check_files(raw: Raw, out: Path) -> None:
    """The demonstrations are the teacher's, the answers those of the world, and no picture is on two sides."""
    sides: Counter[str] = Counter()
    for split in ("sft", "alignment"):
        for found in read_examples(out / "verl" / f"{split}.parquet"):
            picture = picture_of(found.prompt.images[0])
            assert found.completion == raw.examples[picture].completion
            sides[picture] += 1
    for prompt in read_prompts(out / "verl" / "rl.parquet"):
        picture = picture_of(prompt.images[0])
        assert prompt.answer == raw.examples[picture].prompt.answer
        sides[picture] += 1
    assert max(sides.values()) == 1 and len(sides) == sum(1 for _ in raw.store.rows())
    num_pairs = count_step(raw.store, "pairs").num_kept
    if num_pairs:  # a student of two steps has not learned the format
        pairs = list(read_pairs(out / "pairs" / "pairs.jsonl", parse=parse_response))
        assert len(pairs) == num_pairs
        for pair in pairs:
            assert pair.teacher.text == raw.examples[picture_of(pair.prompt.images[0])].completion


def test_the_budget_is_not_passed(tmp_path: Path) -> None:
    store, script = world_store(tmp_path, 80)
    with teaching(tmp_path, script, RATES) as teacher:
        for max_cost in (0.04, 0.06):
            process = start(store, "teach", f"teacher.base_url={teacher.base_url}", f"budget.max_cost={max_cost}")
            _, errors = process.communicate(timeout=200)
            assert process.returncode == 2 and "budget is spent" in errors
            spent = cost_of(teacher.log())
            # Short of it by no more than requests that may still cost their most, or were thought to have.
            assert max_cost / 3 < spent <= max_cost
        assert count_step(store, "teach").num_pending > 0


def test_the_budget_is_not_passed_by_parts_behind_a_whole_run(tmp_path: Path) -> None:
    store, script = world_store(tmp_path, 80)
    with teaching(tmp_path, script, {}) as teacher:

        def begin(max_cost: float, *options: str) -> subprocess.Popen[str]:
            changes = (f"teacher.base_url={teacher.base_url}", f"budget.max_cost={max_cost}")
            return start(store, "teach", *changes, *options)

        def end(process: subprocess.Popen[str]) -> None:
            _, errors = process.communicate(timeout=200)
            assert process.returncode == 2 and "budget is spent" in errors

        end(begin(0.04))
        whole = cost_of(teacher.log())
        for process in [begin(0.05, "--shard", f"{index}/2") for index in range(2)]:  # both at once
            end(process)
        assert whole < cost_of(teacher.log()) <= 0.05
        assert count_step(store, "teach").num_pending > 0
