from .job import BenchmarkJob as BenchmarkJob
from .record import BenchmarkRun as BenchmarkRun
from .registry import open_published as open_published
from .registry import run_benchmark as run_benchmark
