"""How many processors this process may use: containers and schedulers often allow fewer than the machine has."""

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def num_processors(cgroups: Path = _CGROUPS) -> int:
    """Those it may run on, or as many as the quota of its container comes to."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroups)
    return allowed if quota is None else min(allowed, max(1, math.ceil(quota)))


def _quota(cgroups: Path) -> float | None:
    """Processors' worth of time, by cgroups of version 2 or 1 as a container sees its own."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            time, period = " ".join((cgroups / name).read_text() for name in files).split()
        except (OSError, ValueError):
            continue
        if time.isdecimal() and period.isdecimal() and int(period):
            return int(time) / int(period)
    return None
