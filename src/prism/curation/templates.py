"""The prompts of curation are text files: those of the package, or the user's own."""

import hashlib
import importlib.resources
from dataclasses import dataclass, replace
from pathlib import Path

from prism.errors import ConfigError
from prism.records import Prompt


@dataclass(frozen=True, slots=True)
class Template:
    """`text` holds the placeholder once; `sha256` is the template's version."""

    text: str
    placeholder: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def fill(self, value: str) -> str:
        return self.text.replace(self.placeholder, value)

    def fill_prompt(self, prompt: Prompt) -> Prompt:
        """The same prompt with the filled template as its question; images stay where its marks are."""
        return replace(prompt, question=self.fill(prompt.question))


def load_template(name: str, placeholder: str, path: Path | None = None) -> Template:
    """The package's template of that name, or the file at `path`. Raises ConfigError."""
    if path is None:
        text = (importlib.resources.files("prism") / "assets" / "curation" / f"{name}.txt").read_text(encoding="utf-8")
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot read the template: {error}") from None
    if text.count(placeholder) != 1:
        raise ConfigError(f"{path or name}: the template must have {placeholder} in it exactly once")
    return Template(text.strip(), placeholder)
