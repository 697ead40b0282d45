"""Typed fields of rows, by hand-worked values, and the field that a RowError names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prism.data.rejects import RowError
from prism.evals.benchmarks import rows
from prism.records import ImageSource

PNG = b"\x89PNG\r\n\x1a\n...."


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (rows.text_field, " a ", " a "),
        (rows.optional_text, None, ""),
        (rows.optional_text, 3, "3"),
        (rows.answer_field, 2.5, "2.5"),
        (rows.id_field, 7, "7"),
        (rows.id_field, 7.0, "7"),
        (rows.number_field, 1, 1.0),
        (rows.number_field, None, None),
        (rows.mapping_field, {"a": 1}, {"a": 1}),
        (rows.mapping_field, None, {}),
        (rows.strings_field, ["a", 2], ("a", "2")),
        (rows.strings_field, None, ()),
        (rows.strings_field, "['it\\'s', \"a, b\"]", ("it's", "a, b")),
        (rows.strings_field, '["\\u00e9", "$5"]', ("é", "$5")),
        (rows.strings_field, "('a', 'b')", ("a", "b")),
        (rows.strings_field, "", ()),
    ],
)
def test_fields_are_read(read: Callable[[dict[str, Any], str], object], value: object, expected: object) -> None:
    assert read({"field": value}, "field") == expected


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (rows.text_field, None),
        (rows.text_field, " \n"),
        (rows.text_field, 3),
        (rows.answer_field, ""),
        (rows.answer_field, None),
        (rows.id_field, ""),
        (rows.id_field, []),
        (rows.number_field, "1"),
        (rows.number_field, True),
        (rows.number_field, float("nan")),
        (rows.mapping_field, "a"),
        (rows.strings_field, {"a": 1}),
        (rows.strings_field, "a, b"),
        (rows.strings_field, "{'a': 1}"),
        (rows.strings_field, "__import__('os').getcwd()"),
        (rows.strings_field, "[" * 100_000),
        (rows.strings_field, [None]),
    ],
)
def test_a_bad_field_is_named(read: Callable[[dict[str, Any], str], object], value: object) -> None:
    with pytest.raises(RowError) as caught:
        read({"field": value}, "field")
    assert caught.value.field == "field"


@pytest.mark.parametrize(("answer", "letter"), [("C", "C"), ("(b)", "B"), (" a. ", "A")])
def test_letters_of_options(answer: str, letter: str) -> None:
    assert rows.letter_field({"answer": answer}, "answer", 3) == letter


@pytest.mark.parametrize("answer", ["D", "AB", "7 cm", "?"])
def test_letters_of_no_option(answer: str) -> None:
    with pytest.raises(RowError, match="names none of the options"):
        rows.letter_field({"answer": answer}, "answer", 3)


def test_options_are_lettered() -> None:
    assert rows.lettered(["7", "8"]) == "A. 7\nB. 8"
    assert rows.lettered(["{x}"], "({letter}) {text}") == "(A) {x}"


def test_images_come_from_the_columns_that_have_one(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(PNG)
    row = {"image_1": {"bytes": PNG, "path": "gone.png"}, "image_2": None, "image_3": "b.png"}
    embedded, file = ImageSource(data=PNG), ImageSource(path=tmp_path / "b.png")
    assert rows.images_field(row, ["image_1", "image_2", "image_3"], tmp_path) == (embedded, file)
    assert rows.one_image(row, ["image_2", "image_3", "image_1"], tmp_path) == file
    with pytest.raises(RowError) as caught:
        rows.one_image(row, ["image_2", "image_4"], tmp_path)
    assert caught.value.field == "image_2"
