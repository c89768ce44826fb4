"""A run on a benchmark, as records and pages of runs are tested on."""

from boresight.benchmarks.record import BenchmarkRun

RUN = BenchmarkRun(
    benchmark="coco-karpathy-5k",
    title="COCO, Karpathy test 5k",
    model="my <clip>",
    encoder_fingerprint="00",
    editor="mine",
    scores={
        "plain": {"T2I R@1": 31.25, "false rate": 20.0, "odd": 1.0, "told": 60.0},
        "edited": {"T2I R@1": 33.5, "false rate": 25.0, "odd": 1.004, "told": 50.0},
    },
    charts=("T2I R@1",),
    lower=("false rate",),
    neutral=("told",),
    facts={"images": "5,000"},
)
