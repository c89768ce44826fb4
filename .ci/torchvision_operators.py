"""A pytest plugin for the environment of .ci/openclip.sh alone.

torchvision's wheel is built against CUDA; beside a CPU build of torch its compiled operators do not load, and its
import then trips over two that were never declared. Declaring them lets the rest of it, all that open_clip uses, work.
"""

import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

if torch.version.cuda is None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms" + _SIGNATURE)
    library.define("qnms" + _SIGNATURE)
