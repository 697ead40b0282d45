"""Trains the tiny model's tokenizer on the built-in world and writes it where the package ships it.

    python tools/freeze_tokenizer.py

Run once: another tokenizer makes every tiny checkpoint useless.
"""

import random

from prism.data.world.datasets import PUBLIC, demonstrations
from prism.data.world.lessons import draw_lesson
from prism.data.world.oracle import Fidelity
from prism.models.tiny import tiny_encoder, train_tokenizer
from prism.stages.workspace import SHIPPED_TOKENIZER


def main() -> None:
    random_source = random.Random(7)
    texts = []
    for example in demonstrations("tokenizer", PUBLIC, Fidelity(wrong=0.1, vague=0.1, terse=0.3), 2000, seed=7):
        texts.append(f"user\n{example.prompt.question}\nassistant\n{example.completion}\n<caption>")
    for _ in range(4000):
        lesson = draw_lesson(random_source)
        texts.append(f"{lesson.prompt.question}\n{lesson.completion}\n")
    tiny_encoder(train_tokenizer(texts)).save_pretrained(SHIPPED_TOKENIZER)


if __name__ == "__main__":
    main()
