"""What was planted from evaluation sets is found in every disguise, and nothing else is dropped."""

import json
import random
from pathlib import Path

from curated_rows import fill
from labelled_copies import DISGUISES, Problem, disguise, originals, row
from prism.config import EvaluationSet
from prism.curation import Part, Store, count_step
from prism.curation.decontaminate import SAME_PICTURE, SAME_WORDS, STEP, run_decontaminate
from prism.curation.rows import Row
from prism.data.writers import write_verl_parquet
from prism.records import Prompt

LONG = (
    "A tank holds {} litres and loses {} litres through a leak every hour, while {} litres flow in; when is it empty?"
)


def evaluation_file(directory: Path, problems: list[Problem]) -> EvaluationSet:
    path = directory / "held-out.parquet"
    write_verl_parquet(path, (row(str(number), problem).prompt for number, problem in enumerate(problems)))
    return EvaluationSet(name="held-out", path=path)


def text_row(name: str, question: str) -> Row:
    return Row(f"made/{name}", Prompt(name, question, answer="1"))


def test_planted_items_are_found_and_nothing_else_is_dropped(store: Store, tmp_path: Path) -> None:
    source = random.Random(4)
    problems = originals(source, 90)
    source.shuffle(problems)
    held_out, training = problems[:25], problems[25:]
    planted = {}
    for number, problem in enumerate(held_out):
        kind = DISGUISES[number % len(DISGUISES)]
        planted[f"made/p{number}"] = row(f"p{number}", disguise(source, problem, kind))
    # The other questions about a held-out scene, and the numbers of a held-out text, are in `training`.
    seen = {problem.picture.tobytes() for problem in held_out if problem.picture is not None}
    clean = [p for p in training if p.picture is None or p.picture.tobytes() not in seen]
    rows = [*planted.values(), *(row(f"c{number}", problem) for number, problem in enumerate(clean))]
    fill(store, rows)
    run_decontaminate(store, [evaluation_file(tmp_path, held_out)], Part())
    dropped = {outcome.row_id: outcome for outcome in store.outcomes(STEP) if outcome.status == "dropped"}
    assert len(set(planted) & set(dropped)) >= 0.95 * len(planted), set(planted) - set(dropped)
    assert len(set(dropped) - set(planted)) <= 0.01 * len(clean), set(dropped) - set(planted)
    for row_id, outcome in dropped.items():
        if row_id in planted and outcome.reason == SAME_PICTURE:
            # Two questions may be held out about one picture.
            number = int(outcome.findings["item"].removeprefix("held-out/"))
            found, origin = held_out[number].picture, held_out[int(row_id.removeprefix("made/p"))].picture
            assert found is not None and origin is not None and found.tobytes() == origin.tobytes()


def test_words_alone_count_only_where_they_say_enough(store: Store, tmp_path: Path) -> None:
    sentence = LONG.format(700, 12, 5)
    path = tmp_path / "test.jsonl"
    items = [sentence, "What is the capital of France?", *(LONG.format(n, 3, 2) for n in range(800, 810))]
    boilerplate = "Answer the question below with the letter of the right option and nothing else, please. "
    items += [f"{boilerplate} Which of the {word} is it?" for word in ("cats", "dogs", "cows", "owls", "bees", "ants")]
    path.write_text("".join(json.dumps({"prompt": text, "answer": "1"}) + "\n" for text in items))
    rows = [
        text_row("same", sentence),
        text_row("part", f"Think first. {sentence} Give hours."),
        text_row("numbers", LONG.format(701, 12, 5)),
        text_row("short", "What is the capital of Spain?"),
        text_row("template", f"{boilerplate} How many legs do spiders have in this drawing?"),
    ]
    fill(store, rows)
    run_decontaminate(store, [EvaluationSet(name="test", path=path)], Part())
    dropped = {o.row_id: o for o in store.outcomes(STEP) if o.status == "dropped"}
    assert set(dropped) == {"made/same", "made/part"}
    assert all(o.reason == SAME_WORDS and o.findings["item"].startswith("test/") for o in dropped.values())


def test_a_benchmark_is_read_by_its_own_reader(store: Store, tmp_path: Path) -> None:
    problem = next(p for p in originals(random.Random(2), 9) if p.question.startswith("Which texture"))
    image = row("x", problem).prompt.images[0].data
    assert image is not None
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(image)
    item = {"id": "1", "question": "What is it?<image1>", "options": [], "image": "images/1.png", "answer": "5"}
    item |= {"level": 1, "subject": "algebra", "decoded_image": None}
    (tmp_path / "test.jsonl").write_text(json.dumps(item) + "\n")
    fill(store, [row("copy", disguise(random.Random(0), problem, "everything"))])
    images = store.directory / "sets" / "0-1" / "images"
    (images / "ab").mkdir(parents=True)  # left by a run that was killed
    run_decontaminate(store, [EvaluationSet(name="mathvision", path=tmp_path / "test.jsonl")], Part())
    [outcome] = store.outcomes(STEP)
    assert outcome.reason == SAME_PICTURE and outcome.findings["item"] == "mathvision/1"
    assert count_step(store, STEP).num_kept == 0
    assert not images.exists()
