"""The benchmarks the package evaluates on."""

from collections.abc import Mapping

from prism.errors import ConfigError
from prism.evals.benchmarks.benchmark import Benchmark
from prism.evals.benchmarks.hallusion_bench import HALLUSION_BENCH
from prism.evals.benchmarks.mathverse import MATHVERSE
from prism.evals.benchmarks.mathvision import MATHVISION
from prism.evals.benchmarks.mathvista import MATHVISTA
from prism.evals.benchmarks.mmmu import MMMU
from prism.evals.benchmarks.mmmu_pro import MMMU_PRO
from prism.evals.benchmarks.wemath import WEMATH

BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (MATHVISTA, MATHVERSE, MATHVISION, WEMATH, MMMU, MMMU_PRO, HALLUSION_BENCH)
}


def get_benchmark(name: str) -> Benchmark:
    if name not in BENCHMARKS:
        raise ConfigError(f"there is no benchmark {name!r}; known are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
