import pytest

from prism.rewards.structure import Value, read_value


def shape(value: Value) -> object:
    if not value.items:
        return f"{value.label}={value.text}" if value.label else value.text
    items = [shape(item) for item in value.items]
    found = (value.brackets, items) if value.is_ordered else (value.brackets, frozenset(map(str, items)))
    return (value.label, *found) if value.label else found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 5", "x=5"),
        ("AB = 2+3 = 5", "AB=5"),
        ("(1, 2)", ("()", ["1", "2"])),
        ("[1,2)", ("[)", ["1", "2"])),
        (r"\{1,2\}", ("{}", frozenset("12"))),
        ("1 or 2", ("", frozenset("12"))),
        ("1, 2 and 3", ("", ["1", "2", "3"])),
        ("n = 1, 2, 3", ("n", "", ["1", "2", "3"])),
        ("a=4, b=3", ("", ["a=4", "b=3"])),
        ("1,000, 2,000", ("", ["1,000", "2,000"])),
        ("(1,2), (3,4)", ("", [("()", ["1", "2"]), ("()", ["3", "4"])])),
        (r"\pm 2", ("", frozenset({"2", "-2"}))),
        ("x > 3", ("x", "()", ["3", r"\infty"])),
        (r"3 \ge x", ("x", "(]", [r"-\infty", "3"])),
        (r"1 < x \le 2", ("x", "(]", ["1", "2"])),
        ("2 > x > 1", ("x", "()", ["1", "2"])),
        ("(1) 5 (2) 7", ("", ["5", "7"])),
        ("(1) 5", "5"),
        ("(x+1)(x-1)", "(x+1)(x-1)"),
        (r"\sum_{n=1}^{5} n", r"\sum_{n=1}^{5} n"),
        ("((((((1, 2))))))", "((1, 2))"),  # no deeper than four levels
    ],
)
def test_shapes(text: str, expected: object):
    assert shape(read_value(text)) == expected
