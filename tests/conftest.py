"""One torch thread: the suite's matrices are small, and threads of parallel runs would fight over the cores."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

torch.set_num_threads(1)
