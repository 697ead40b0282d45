"""Where the images of a question belong."""

from prism.errors import DataError
from prism.records import IMAGE_MARK, Prompt


def question_parts(prompt: Prompt) -> list[str | None]:
    """Texts of the question in order, None where an image belongs; images come first if none is marked.

    Raises DataError when `<image>` marks and images disagree in number.
    """
    texts = prompt.question.split(IMAGE_MARK)
    num_marks = len(texts) - 1
    if num_marks == 0:
        return [*[None] * len(prompt.images), prompt.question]
    if num_marks != len(prompt.images):
        raise DataError(f"question has {num_marks} {IMAGE_MARK} marks for {len(prompt.images)} images; make them agree")
    parts: list[str | None] = [texts[0]]
    for text in texts[1:]:
        parts += [None, text]
    return [part for part in parts if part != ""]
