"""Where prompts and demonstrations come from: the built-in world or a user's files."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Tag, model_validator

from prism.config.base import Config, Count, Fraction, NonNegativeCount, contradiction, variant_or


class PublicFidelity(Config):
    """How the writer of the public demonstrations errs.

    Per described attribute the chance of a wrong and of a vague word, and of taking a value that has a
    look-alike for it (purple for blue, a star for a square, 5 for 4): above one half, that is what a model
    learns to say. With `mutual` the look-alikes are taken for one another, and no word becomes rarer. Per response the
    chance that the reasoning skips its steps. Curated and alignment demonstrations never err.
    """

    wrong: Fraction = 0.08
    vague: Fraction = 0.12
    terse: Fraction = 0.3
    confused: Fraction = 0.0
    mutual: bool = False

    @model_validator(mode="after")
    def _check_sum(self) -> "PublicFidelity":
        if self.wrong + self.vague > 1:
            raise contradiction("vague", self.vague, f"together with wrong ({self.wrong}) it must not exceed 1")
        if self.wrong + self.vague + self.confused > 1:
            others = f"wrong and vague ({self.wrong + self.vague:g})"
            raise contradiction("confused", self.confused, f"together with {others} it must not exceed 1")
        return self


class WorldData(Config):
    """The procedurally generated world; every seed of a run draws its own data.

    Counts are rows: demonstrations for `public`, `curated` and `alignment`, prompts for `rl`,
    demonstrations held out for `dev`, and questions per sub-benchmark for `test_per_benchmark`.
    `test_split` names the scenes that those ask about: settings are to be chosen on `dev`.
    """

    type: Literal["world"] = "world"
    public: NonNegativeCount = 3000
    curated: NonNegativeCount = 300
    alignment: Count = 400
    rl: Count = 400
    dev: Count = 64
    test_per_benchmark: Count = 40
    test_split: Literal["dev", "test"] = "test"
    public_fidelity: PublicFidelity = PublicFidelity()

    @model_validator(mode="after")
    def _check_demonstrations(self) -> "WorldData":
        if self.public + self.curated == 0:
            raise contradiction("public", self.public, "public and curated must not both be 0")
        return self

    @property
    def num_demonstrations(self) -> int:
        return self.public + self.curated


class FilesData(Config):
    """A user's own data (parquet, JSON or JSONL). Only what the recipe's stages read must be given.

    `image_root` is where relative image paths start; by default the folder of the file that names them.
    """

    type: Literal["files"] = "files"
    sft: tuple[Path, ...] = ()
    alignment: Path | None = None
    rl: Path | None = None
    dev: Path | None = None
    test: Path | None = None
    image_root: Path | None = None


Data = Annotated[Annotated[WorldData, Tag("world")] | Annotated[FilesData, Tag("files")], variant_or("world")]
