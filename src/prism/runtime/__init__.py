"""What every stage stands on: resumable runs, checkpoints, logs, optimizers, seeds."""

from prism.runtime.atomic import atomic_directory, write_bytes, write_json, write_text
from prism.runtime.checkpoint import LoadedCheckpoint, load_latest, save_checkpoint
from prism.runtime.hashing import code_version, config_sha256, directory_sha256, file_sha256, path_sha256
from prism.runtime.interrupt import Interrupted, InterruptFlag
from prism.runtime.manifest import read_manifest
from prism.runtime.metrics import JsonlLog, check_finite
from prism.runtime.optimizer import clip_gradients, make_optimizer, make_schedule
from prism.runtime.progress import StepProgress
from prism.runtime.seeding import derive_seed, generator, python_random, seed_globals
from prism.runtime.stage import StageRun
from prism.runtime.threads import ThreadChoice, choose_threads

__all__ = [
    "InterruptFlag",
    "Interrupted",
    "JsonlLog",
    "LoadedCheckpoint",
    "StageRun",
    "StepProgress",
    "ThreadChoice",
    "atomic_directory",
    "check_finite",
    "choose_threads",
    "clip_gradients",
    "code_version",
    "config_sha256",
    "derive_seed",
    "directory_sha256",
    "file_sha256",
    "generator",
    "load_latest",
    "make_optimizer",
    "make_schedule",
    "path_sha256",
    "python_random",
    "read_manifest",
    "save_checkpoint",
    "seed_globals",
    "write_bytes",
    "write_json",
    "write_text",
]
