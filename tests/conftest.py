"""One thread: the suite's matrices are small, and threads of parallel runs would fight over the cores.

Said before torch is imported, and not to torch: the process that hands out tests to others runs none and spares it.
"""

from __future__ import annotations

import gc
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
os.environ["TOKENIZERS_PARALLELISM"] = "false"


def pytest_collection_finish() -> None:
    """All that is imported stays: not to be gone through again in each collection of garbage, nor copied by a fork."""
    gc.collect()
    gc.freeze()
