"""When two prompts are the same problem."""

import hashlib
import json

from prism.data.images import image_hash
from prism.records import Prompt


def content_hash(prompt: Prompt) -> str:
    """SHA-256 of what the model is shown: system text, question, choices and pixels.

    Id, answer and metadata do not count, nor how and where an image is stored. Decodes the images; raises
    DataError for one that cannot be.
    """
    images = [image_hash(image) for image in prompt.images]
    content = json.dumps([prompt.system, prompt.question, prompt.choices, images])
    return hashlib.sha256(content.encode()).hexdigest()
