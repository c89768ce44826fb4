"""Training with synthetic captions: steps against a plain loop, memory, and the loader against the step; one thread.

    python profiling/pretraining.py [--scale 0.5] [--batch 16] [--rounds 3] [--pairs 4096] [--pictures 512]

Steps. The towers of a ViT-B/32 CLIP with `--scale` of its widths and heads, random weights, 224 pixels. *Plain* is the
usual loop: all B x B logits by one product, cross entropy both ways, backward, AdamW. *Ours* is `pretrain` itself,
timed from batch to batch; before each of its steps the plain loop makes one of its own, on web captions of 77 tokens,
padding included, so both meet the same weather. Ratios are medians over these pairs. Both give the same loss at the
start, checked here.

Memory. Peak above the start, each in a process of its own: the loss of `--pairs` images with both kinds of captions,
whole and in blocks; a step of the towers on `--batch` x 4 images, whole and in micro-batches.

Loader. Images a second of `PairStream` from a tar of JPEGs, 256 pixels a side, against what the measured step takes,
and a ViT-B/32 at full width on a GPU, by its floating-point operations.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer, CLIPConfig, CLIPModel

from boresight.models import default_model_path
from boresight.seeds import generator
from boresight.training.config import Captions, PretrainConfig, Stage, StreamConfig
from boresight.training.contrastive import clamp_scale, clips_loss
from boresight.training.gradient_cache import cached_backward
from boresight.training.loop import pretrain
from boresight.training.shards import open_shards
from boresight.training.stream import PairStream
from boresight.training.trainee import Trainee, loss_of

STEPS: dict[str, tuple[Captions, int, int]] = {
    "web captions, 77 tokens": ("web", 77, 77),
    "web captions, 32 tokens": ("web", 32, 32),
    "CLIPS, 77 tokens": ("both", 77, 77),
    "CLIPS, 32 tokens": ("both", 32, 32),
    "web, 77 of which 20 said": ("web", 77, 20),
    "CLIPS, 77 of which 34 said": ("both", 77, 34),
}
"""Captions, tokens of the text tower, and how many of them the longest caption fills; the rest is padding."""
START, END = 49406, 49407
MEMORY = ("loss whole", "loss in blocks of 256", "step whole", "step in micro-batches of 8")
WIDTH, BLOCK, MICRO = 64, 256, 8
GPU_RATE = 100e12  # operations a second that large products in bf16 reach on one GPU of the day, not measured here
SENTENCE = "A brown dog leaps over a red hurdle on the lawn while two others wait by the white fence. "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.5, help="share of the widths of a ViT-B/32")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=4096)
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--peak-of", choices=MEMORY, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.peak_of:
        print(json.dumps(peak_of(arguments.peak_of, arguments)))
        return
    needed = steps(arguments)
    memory(arguments)
    loader(arguments, needed)


def steps(arguments: argparse.Namespace) -> float:
    """Prints the table of steps; images a second of the product with both captions of 32 tokens."""
    same_loss(arguments.scale)
    print(f"{'step':26} {'plain, images/s':>16} {'ours, images/s':>15} {'ours / plain':>13}")
    ratios, needed = {}, math.nan
    for name, (captions, tokens, said) in STEPS.items():
        ours, plain = timed(captions, tokens, said, arguments)
        ratios[name] = median(theirs / own for own, theirs in zip(ours, plain, strict=True))
        rates = [arguments.batch / median(seconds) for seconds in (plain, ours)]
        print(f"{name:26} {rates[0]:16.2f} {rates[1]:15.2f} {ratios[name]:13.3f}", flush=True)
        needed = rates[1] if name == "CLIPS, 32 tokens" else needed
    for kind in ("web captions", "CLIPS"):
        saving = ratios[f"{kind}, 32 tokens"] / ratios[f"{kind}, 77 tokens"]
        print(f"{kind}: 32 tokens are {saving:.2f} times as fast as 77")
    return needed


class EnoughError(Exception):
    """Ends `pretrain` before it writes a checkpoint."""


@dataclass
class Interleaved:
    """Batches for `pretrain` that make a plain step, of web captions and 77 tokens, before each of its own."""

    batch: Mapping[str, Tensor]
    plain_batch: Mapping[str, Tensor]
    model: CLIPModel
    rounds: int
    ours: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)

    def __call__(self, stage: Stage, start: int) -> Iterator[Mapping[str, Any]]:
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=5e-4, betas=(0.9, 0.95), weight_decay=0.2)
        for _ in range(self.rounds + 1):
            began = time.perf_counter()
            plain_step(self.model, optimizer, self.plain_batch)
            handed = time.perf_counter()
            yield self.batch
            self.ours.append(time.perf_counter() - handed)
            self.plain.append(handed - began)
        raise EnoughError


def timed(captions: Captions, tokens: int, said: int, arguments: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Seconds of each step of the product and of each plain one, without the first of each."""
    model = towers(arguments.scale)
    trainee = Trainee(model, tokenizer(), captions=captions)
    trainee.end = END  # the shapes are those of CLIP, and so are the numbers
    web = made(arguments.batch, 77, 77)
    work = Interleaved(made(arguments.batch, tokens, said), web, towers(arguments.scale), arguments.rounds)
    config = PretrainConfig(steps=10**6, batch_size=arguments.batch, captions=captions, warmup=0, every=10**6)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(EnoughError):
        pretrain(trainee, work, config, folder, tensorboard=False)
    return work.ours[1:], work.plain[1:]


def plain_step(model: CLIPModel, optimizer: torch.optim.Optimizer, batch: Mapping[str, Tensor]) -> None:
    plain_loss(model, batch).backward()
    optimizer.step()
    optimizer.zero_grad()  # here, or the other loop would run beside its gradients
    clamp_scale(model.logit_scale)


def plain_loss(model: CLIPModel, batch: Mapping[str, Tensor]) -> Tensor:
    images = F.normalize(model.get_image_features(pixel_values=batch["pixel_values"]).pooler_output, dim=-1)
    texts = F.normalize(model.get_text_features(input_ids=batch["web_ids"]).pooler_output, dim=-1)
    logits = model.logit_scale.exp() * images @ texts.T
    labels = torch.arange(len(logits))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def same_loss(scale: float) -> None:
    """Stops unless both loops have the same loss and gradient of the temperature, to five digits."""
    model, batch = towers(scale), made(4, 77, 77)
    trainee = Trainee(model, tokenizer(), captions="web")
    found = []
    for loss in (plain_loss(model, batch), loss_of("softmax", "web")(*trainee(batch).inputs)):
        model.zero_grad()
        loss.backward()
        found.append((loss.item(), model.logit_scale.grad.item()))
    print(f"loss, gradient of the temperature: plain {found[0]}, ours {found[1]}")
    if not all(math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-6) for a, b in zip(*found, strict=True)):
        raise SystemExit("The losses disagree.")


def memory(arguments: argparse.Namespace) -> None:
    print(f"\n{'peak above the start':28} {'MB':>8}")
    for what in MEMORY:
        command = [sys.executable, __file__, "--peak-of", what, "--pairs", str(arguments.pairs)]
        command += ["--batch", str(arguments.batch), "--scale", str(arguments.scale)]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        print(f"{what:28} {json.loads(found.splitlines()[-1]):8.0f}")


def peak_of(what: str, arguments: argparse.Namespace) -> float:
    """MB that one loss with its backward, or one gradient of the towers, adds to this process at its peak."""
    if what.startswith("loss"):
        draw = generator(0, "rows")
        rows = [F.normalize(torch.randn(arguments.pairs, WIDTH, generator=draw)).requires_grad_() for _ in range(3)]
        chunk = BLOCK if "blocks" in what else None
        return added(lambda: clips_loss(*rows, torch.tensor(2.0), chunk=chunk).backward())
    trainee, batch = Trainee(towers(arguments.scale), tokenizer()), made(4 * arguments.batch, 77, 77)
    for value in trainee.parameters():  # gradients are there either way
        value.grad = torch.zeros_like(value)
    count, size = 4 * arguments.batch, MICRO if "micro" in what else 4 * arguments.batch
    chunks = [{name: value[at : at + size] for name, value in batch.items()} for at in range(0, count, size)]
    return added(lambda: cached_backward(trainee, chunks, loss_of("softmax", "both")))


def added(run: Callable[[], object]) -> float:
    """MB by which the resident memory of this process rises at most while `run` runs (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    start = peak()
    run()
    return peak() - start


def peak() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def loader(arguments: argparse.Namespace, step_rate: float) -> None:
    print(f"\n{'loader, 77 tokens':28} {'images/s':>9}")
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        write_shard(Path(folder) / "0.tar", arguments.pictures)
        source = open_shards(Path(folder) / "0.tar")
        for workers in (0, 2):
            config = StreamConfig(batch_size=32, image_size=224, output_length=129, buffer=256, workers=workers)
            batches = iter(PairStream(source, tokenizer(), config))
            for _ in islice(batches, 1 + workers):  # workers start and fill their buffers
                pass
            began, count = time.perf_counter(), max(4, arguments.pictures // 32)
            for _ in islice(batches, count):
                pass
            rates[workers] = 32 * count / (time.perf_counter() - began)
            print(f"{f'{workers} workers':28} {rates[workers]:9.1f}")
            del batches
    for kind, operations in per_image().items():
        gpu = GPU_RATE / operations
        print(
            f"ViT-B/32, {kind}: {operations / 1e9:.0f} billion operations an image; {gpu:,.0f} images/s at "
            f"{GPU_RATE / 1e12:.0f} tera a second, {math.ceil(gpu / rates[0])} workers such as the one in the process"
        )
    print(f"the measured step takes {step_rate:.1f} images/s, {step_rate / rates[2]:.1%} of what two workers give")


def per_image() -> dict[str, float]:
    """Operations of forward and backward (three forwards) of one image with both of its captions."""
    with torch.device("meta"):
        model = CLIPModel(CLIPConfig())
        pixels = torch.empty(1, 3, 224, 224)
        found = {}
        for tokens in (77, 32):
            with FlopCounterMode(display=False) as counter:
                model.vision_model(pixel_values=pixels)
                model.text_model.encoder(inputs_embeds=torch.empty(2, tokens, 512), attention_mask=None)
            found[f"both captions of {tokens} tokens"] = 3.0 * counter.get_total_flops()
    return found


def write_shard(file: Path, count: int) -> None:
    """A tar of JPEGs with the coarse colours and the fine grain of a photo, a short caption and a long one each."""
    draw = generator(0, "pictures")
    with tarfile.open(file, "w") as tar:
        for number in range(count):
            coarse = F.interpolate(torch.rand(1, 3, 12, 12, generator=draw), size=(256, 256), mode="bicubic")[0]
            noisy = (coarse + 0.05 * torch.randn(3, 256, 256, generator=draw)).clamp(0, 1)
            picture = io.BytesIO()
            Image.fromarray((noisy * 255).byte().permute(1, 2, 0).numpy()).save(picture, "JPEG", quality=90)
            texts = {"txt": b"a dog at the races", "syn.txt": (SENTENCE * 5).encode()}
            for suffix, content in {"jpg": picture.getvalue(), **texts}.items():
                entry = tarfile.TarInfo(f"{number:06d}.{suffix}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


def towers(scale: float) -> CLIPModel:
    """A `CLIPModel` with so much of the widths and heads of a ViT-B/32, and all of its layers."""
    torch.manual_seed(0)

    def shape(width: int, heads: int) -> dict[str, int]:
        heads = max(1, round(heads * scale))
        return {
            "hidden_size": width // 12 * heads if width == 768 else width // 8 * heads,
            "num_attention_heads": heads,
        }

    vision, text = shape(768, 12), shape(512, 8)
    for part in (vision, text):
        part["intermediate_size"] = 4 * part["hidden_size"]
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=text["hidden_size"])
    return CLIPModel(config).float()


def made(count: int, tokens: int, said: int) -> dict[str, Tensor]:
    """Noise for pictures, captions of `said` tokens with both ends, padded to `tokens`."""
    draw = generator(0, f"batch of {count}")
    texts = {}
    for name in ("web_ids", "syn_ids"):
        texts[name] = torch.randint(1000, 40000, (count, tokens), generator=draw)
        texts[name][:, 0], texts[name][:, said - 1 :] = START, END
    pixels = torch.randn(count, 3, 224, 224, generator=draw)
    return {"pixel_values": pixels, **texts, "syn_full_ids": texts["web_ids"]}


def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(str(default_model_path()))


if __name__ == "__main__":
    main()
