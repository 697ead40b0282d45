import pytest

from prism.rewards.normalization import clean, last_boxed, strip_phrases, text_key


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  **B** ", "B"),
        (r"$\boxed{\dfrac12}$.", r"\frac{1}{2}"),
        (r"x = \boxed{5}", "x = 5"),
        (r"\left(1,\,2\right)", "(1, 2)"),
        (r"\text{5 cm}", "5 cm"),
        (r"\mathrm{m\,s^{-1}}", "m s^{-1}"),
        ("x²", "x^2"),
        ("10⁻³", "10^{-3}"),
        ("x₁", "x_1"),
        ("½", "1/2"),
        ("①5 ②7", "(1) 5 (2) 7"),
        ("∛8", r"\sqrt[3]{8}"),
        ("30^{\\circ}", "30°"),
        ("x**2", "x^2"),
        ("5 x 6", r"5 \times 6"),
        ("x is greater than 3", "x > 3"),
        ("x不小于3", r"x\ge 3"),
        (r"\begin{cases} x=1 \\ y=2 \end{cases}", "x=1 , y=2"),
        ("0.333...", r"0.333\ldots"),
        ("1\x002", "1 2"),
        ("ℝ", r"\mathbb{R}"),
        ("Red!", "Red"),
        ("5!", "5!"),
        ('"5"', "5"),
    ],
)
def test_clean(text: str, cleaned: str):
    assert clean(text) == cleaned


def test_two_boxes_stay_two():
    assert clean(r"\boxed{5} \boxed{6}") == r"\boxed{5} \boxed{6}"


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("So the final answer is: 5", "5"),
        ("Therefore, x = 5", "x = 5"),
        ("The answer is 4. No, the answer is 5 because 2+3=5", "5"),
        ("not 5 but 6", "6"),
        ("5 apples in total", "5 apples"),
        ("It is red", "red"),
        ("=> 5", "5"),
        ("是5", "5"),
        ("the answer is", "the answer is"),
        ("Sonic", "Sonic"),
    ],
)
def test_strip_phrases(text: str, stated: str):
    assert strip_phrases(text) == stated


def test_keys_of_words_and_of_formulas():
    assert text_key("The Red car") == text_key("red cars")
    assert text_key("5 mW") != text_key("5 MW")


def test_last_boxed():
    assert last_boxed(r"\boxed{1} and \boxed{\frac{1}{2}} and \boxed{3") == r"\frac{1}{2}"
    assert last_boxed("no box") is None
