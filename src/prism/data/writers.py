"""Everything that writes data files; what is written reads back equal, with images as bytes or files."""

from prism.data.formats.sharegpt import write_image_folder, write_sharegpt
from prism.data.formats.trl import write_trl
from prism.data.formats.verl_parquet import write_verl_parquet
from prism.data.formats.warmup_pairs import write_pairs

__all__ = ["write_image_folder", "write_pairs", "write_sharegpt", "write_trl", "write_verl_parquet"]
