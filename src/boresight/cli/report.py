"""`boresight report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write one self-contained page of benchmark runs: tables beside published figures, plots, pictures."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders written by 'boresight evaluate BENCHMARK --out'."""
    out: Path = Path("report.html")
    """The page to write."""
    title: str = "Benchmarks of the field"
    """Its heading."""

    def run(self) -> None:
        """Write the page and print where it is."""
        from boresight.benchmarks.record import BenchmarkRun
        from boresight.reports.benchmark_page import write_benchmark_report

        write_benchmark_report(self.out, [BenchmarkRun.load(folder) for folder in self.runs], self.title)
        print(self.out)
