"""Everything that writes data files; what is written reads back equal, with images as bytes or files."""

from prism.data.formats.sharegpt import write_sharegpt
from prism.data.formats.verl_parquet import write_verl_parquet
from prism.data.formats.warmup_pairs import write_pairs

__all__ = ["write_pairs", "write_sharegpt", "write_verl_parquet"]
