"""From raw problems to verified demonstrations: small, resumable steps over one store (see docs/data.md)."""

from prism.curation.chain import StepRun
from prism.curation.funnel import Funnel, count_import, count_step
from prism.curation.rows import Outcome, Row, Step, WholeStep
from prism.curation.running import run_step, run_whole_step
from prism.curation.store import Part, Store

__all__ = [
    "Funnel",
    "Outcome",
    "Part",
    "Row",
    "Step",
    "StepRun",
    "Store",
    "WholeStep",
    "count_import",
    "count_step",
    "run_step",
    "run_whole_step",
]
