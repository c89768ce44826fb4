"""Training of a caption editor: InfoNCE over every pair of a batch, chosen on validation."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.editing.choosing import choosing_sample, recall_sum
from boresight.editing.config import EditorFit
from boresight.editing.hubness import METHODS, choose_corrections
from boresight.editing.learning import captions_of_images, decay_groups
from boresight.editing.masks import log_odds
from boresight.editing.memory import NEIGHBOURS, Memory, Neighbours, joined_neighbours, remember
from boresight.editing.model import EditModel
from boresight.editing.presence import START
from boresight.editing.scorer import PreparedImages
from boresight.embeddings.embeddings import Embeddings, check_rows
from boresight.errors import InputError
from boresight.progress import progress
from boresight.seeds import generator

_START_SCALE = 20.0
_MAX_SCALE = 100.0
_DIAL_RATE = 5e-2
_STRENGTHS = (1.0, 0.75, 0.5, 0.25, 0.0)
_LEVELS = (0.0, 0.5, 1.0)
_AS_GOOD = 1.0  # of a sum of six recalls, 0 to 600: less than a seed changes
_AS_MUCH = 0.05  # of what an edit gains
_PREPARED_FLOATS = 2**26
_RECALLED_AT_ONCE = 8192


def infonce(scores: Tensor, owners: Tensor, negative: Tensor) -> Tensor:
    """Symmetric InfoNCE of a matrix of scaled scores; a pair that is neither positive nor negative is left out.

    The score of image i with caption j is that of image i *edited by caption j*: editing only the diagonal and
    reusing it would hand every softmax its answer.

    Args:
        scores: (B, T), scores times the temperature's inverse.
        owners: (T,), row of each caption's own image.
        negative: (B, T) bool, pairs that may be pushed apart.

    Returns:
        The mean over captions of the loss among images, and over captions of the loss of their image among
        the captions of others, halved.
    """
    columns = torch.arange(len(owners), device=scores.device)
    positive = scores[owners, columns]
    others = scores.masked_fill(~negative, -torch.inf)
    among_images = torch.logaddexp(positive, others.logsumexp(0)) - positive
    among_captions = torch.logaddexp(positive, others.logsumexp(1)[owners]) - positive
    return (among_images.mean() + among_captions.mean()) / 2


def train_editor(
    editor: EditModel, train_set: Embeddings, validation: Embeddings, options: EditorFit, what: str = "editor"
) -> tuple[list[dict[str, float]], float]:
    """Train `editor` in place and leave the best state on validation in it, less its hubness where it has a memory.

    A mask that is taught has been taught before. The progress bar says `what`.

    Returns:
        One entry for each look at validation: `step`, `recall_sum`, and `loss` (mean since the last look); and the sum
        of recalls that the editor as it is left reaches there.
    """
    recall: TrainingNeighbours | None = None
    if editor.memory is not None:
        memory, slots = remember(train_set, options.seed)
        editor.memory = memory.to(editor.device)
        recall = TrainingNeighbours(editor.memory, train_set, slots, moves_images=editor.config.memory == "both")
    groups = _parameter_groups(editor, options)
    steps = options.steps_for(len(train_set)) if groups else 0
    chooser = _Chooser(editor, validation, options.seed)
    history = [{"step": 0.0, "recall_sum": chooser.recall_sum()}]
    best = copy.deepcopy(editor.state_dict())
    if steps:
        networks: list[Any] = [editor.gate_network, editor.memory]
        if editor.config.taught:
            editor.dials.data.copy_(torch.tensor(START))
        else:
            networks.append(editor.mask_network)
        for network in networks:
            if hasattr(network, "start"):
                network.start(options.seed)
        for step, loss in _descend(editor, train_set, recall, groups, steps, options, what):
            history.append({"step": float(step), "recall_sum": chooser.recall_sum(), "loss": loss})
            if history[-1]["recall_sum"] > max(entry["recall_sum"] for entry in history[:-1]):
                best = copy.deepcopy(editor.state_dict())
        editor.load_state_dict(best)
    reached = max(entry["recall_sum"] for entry in history)
    if steps and editor.config.taught:
        reached = _choose_dials(editor, chooser)
    if editor.memory is not None and options.correction != "none":
        methods = METHODS if options.correction is None else (options.correction,)
        chosen = choose_corrections(editor, editor.bank, chooser.sample, methods)
        editor.config = replace(editor.config, image_correction=chosen.images, text_correction=chosen.texts)
        reached = chosen.recall_sum
    return history, reached


@torch.no_grad()
def _choose_dials(editor: EditModel, chooser: _Chooser) -> float:
    """The level that finds most on validation, then the strongest edit that is as good as the best.

    That is within a point of it, or has 95 % of what it gains, and is not below no edit. Tried are what is learnt and a
    few others. Returns the sum of recalls that is reached.
    """

    def reached(dial: int, tried: Sequence[float]) -> dict[float, float]:
        found = {}
        for chosen in (float(editor.dials[dial]), *log_odds(tried).tolist()):
            editor.dials[dial] = chosen
            found[chosen] = chooser.recall_sum()
        return found

    if editor.config.levels:
        found = reached(1, _LEVELS)
        editor.dials[1] = max(found, key=lambda chosen: found[chosen])
    found = reached(0, _STRENGTHS)
    best, none = max(found.values()), found[min(found)]
    enough = max(none, best - max(_AS_GOOD, _AS_MUCH * (best - none)))
    strongest = max(chosen for chosen, recalls in found.items() if recalls >= enough)
    editor.dials[0] = strongest
    return found[strongest]


def check_sets(train_set: Embeddings, validation: Embeddings) -> None:
    """Raises InputError when an editor cannot be fitted on one and chosen on the other."""
    for name, part, least in (("training", train_set, 2), ("validation", validation, 1)):
        if len(part) < least:
            raise InputError(f"The {name} set has {len(part)} images and {least} are needed; check the splits.")
        if len(part.owners) == 0:
            raise InputError(f"The {name} set has no captions, and an editor learns from captions; check the splits.")
        if len(part.owners.unique()) > 1 and len(_same_text(part).unique()) == 1:
            raise InputError(f"All {len(part.owners)} captions of the {name} set read the same; give images their own.")
        check_rows(part.images, f"the {name} images")
        check_rows(part.texts, f"the {name} captions")
    require_apart(train_set, validation, "training", "validation")


def require_apart(first: Embeddings, second: Embeddings, first_name: str, second_name: str) -> None:
    """Raises InputError when an image is in both: one set is for fitting, one for choosing, one for reporting."""
    row_of = {name: row for row, name in enumerate(first.ids)}
    for row, name in enumerate(second.ids):
        # Ids may be mere row numbers of two arrays, so the embeddings must agree as well.
        if name in row_of and torch.equal(first.images[row_of[name]].float(), second.images[row].float()):
            raise InputError(
                f"Image '{name}' is in both {first_name} and {second_name}; each image serves one of them."
            )


def _descend(
    editor: EditModel,
    train_set: Embeddings,
    recall: TrainingNeighbours | None,
    groups: list[dict[str, Any]],
    steps: int,
    options: EditorFit,
    what: str,
) -> Iterator[tuple[int, float]]:
    """Trains, and stops to yield (step, mean loss) whenever validation is due."""
    log_scale = torch.nn.Parameter(torch.tensor(math.log(_START_SCALE), device=editor.device))
    optimizer = torch.optim.AdamW([*groups, {"params": [log_scale], "lr": options.learning_rate, "weight_decay": 0.0}])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    batches = _batches(train_set, options)
    every = max(1, math.ceil(steps / options.evaluations))
    prepared = _prepare_all(editor, train_set)
    network = editor.mask_network if editor.mask_network is not None else editor.gate_network
    losses: list[Tensor] = []
    for step in progress(range(1, steps + 1), what=what, unit="step"):
        rows, captions, owners, negative = next(batches)
        near_images, near_texts = (None, None) if recall is None else recall(rows, captions)
        if prepared is not None:
            images = prepared[rows]
        else:
            images = editor.prepare_images(train_set.images[rows], near=near_images)
        captioned = train_set.texts[captions].to(editor.device).float()
        texts = editor.prepare_texts(captioned, near=near_texts)
        scores = editor.score_prepared(images, texts) * log_scale.exp().clamp(max=_MAX_SCALE)
        loss = infonce(scores, owners.to(editor.device), negative.to(editor.device))
        if options.sparsity and network is not None:
            loss = loss + options.sparsity * network(F.normalize(captioned, dim=1)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
        if step % every == 0 or step == steps:
            mean = float(torch.stack(losses).mean())  # read here alone: on a GPU every reading waits for it
            if not math.isfinite(mean):
                raise InputError(
                    f"Training diverged at step {step} (the loss is {mean}); choose a smaller learning_rate than "
                    f"{options.learning_rate}, mask_learning_rate than {options.mask_learning_rate}, "
                    f"gate_learning_rate than {options.gate_learning_rate}, memory_learning_rate than "
                    f"{options.memory_learning_rate} or weight_decay than {options.weight_decay}."
                )
            yield step, mean
            losses = []


def _batches(train_set: Embeddings, options: EditorFit) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Endless epochs of (image rows (B,), caption rows (T,), owners (T,) in 0..B-1, negative (B, T) bool)."""
    draw = generator(options.seed, "editor batches")
    same = _same_text(train_set)
    by_image, first, counts = captions_of_images(train_set)
    captioned = counts.nonzero()[:, 0]
    if len(captioned) < 2:
        raise InputError("Only one training image has captions, and contrast needs two; check the splits.")
    size = min(options.batch_size, len(captioned))
    while True:
        shuffled = captioned[torch.randperm(len(captioned), generator=draw)]
        for start in range(0, len(shuffled) - size + 1, size):
            rows = shuffled[start : start + size]
            taken = counts[rows].clamp(max=options.captions_per_image)
            slots = torch.rand(len(rows), int(counts[rows].max()), generator=draw)
            beyond = torch.arange(slots.shape[1]) >= counts[rows].unsqueeze(1)
            shuffled_captions = first[rows].unsqueeze(1) + slots.masked_fill(beyond, 2.0).argsort(1)
            chosen = torch.arange(slots.shape[1]) < taken.unsqueeze(1)
            captions = by_image[shuffled_captions[chosen]]
            owners = torch.repeat_interleave(torch.arange(len(rows)), taken)
            theirs = same[by_image[shuffled_captions[~beyond]]]
            holder = torch.repeat_interleave(torch.arange(len(rows)), counts[rows])
            shared = torch.zeros(len(rows), len(captions), dtype=torch.int32)
            shared.index_add_(0, holder, (theirs.unsqueeze(1) == same[captions].unsqueeze(0)).int())
            yield rows, captions, owners, shared == 0


def _same_text(train_set: Embeddings) -> Tensor:
    """(M,) a number for each caption, equal where the captions are the same: by string, else by embedding."""
    numbers: dict[Any, int] = {}
    if train_set.captions is not None:
        return torch.tensor([numbers.setdefault(caption, len(numbers)) for caption in train_set.captions])
    return torch.tensor([numbers.setdefault(hash(row.tobytes()), len(numbers)) for row in train_set.texts.numpy()])


def _parameter_groups(editor: EditModel, options: EditorFit) -> list[dict[str, Any]]:
    """What is trained: head, mask, gate and memory, each at its own rate; vectors are not decayed."""
    groups: list[dict[str, Any]] = []
    # A mask as fast as the gate overfits a few thousand captions before the gate has settled.
    mask_rate = options.mask_learning_rate * (0.2 if editor.config.has_gate else 1.0)
    for candidates, rate in (
        ([editor.head_map, editor.head_bias], options.learning_rate),
        ([] if editor.config.taught else _parameters(editor.mask_network), mask_rate),
        (_parameters(editor.gate_network), options.gate_learning_rate),
        (_parameters(editor.memory), options.memory_learning_rate),
        ([editor.dials], _DIAL_RATE),
    ):
        groups += decay_groups([p for p in candidates if p.requires_grad], rate, options.weight_decay)
    return groups


def _parameters(network: Any) -> list[torch.nn.Parameter]:
    return [] if network is None else list(network.parameters())


def _prepare_all(editor: EditModel, train_set: Embeddings) -> PreparedImages | None:
    """The static side of every training image where training leaves it alone and it is small enough, else None."""
    config = editor.sae.config
    if editor.config.memory == "both" or editor.config.taught:
        return None
    k = (config.max_active if config.thresholded else config.k) if editor.config.has_latents else 0
    each = editor.width + 3 * k + (k * k if editor.config.needs_terms else 0)
    return editor.prepare_images(train_set.images) if len(train_set) * each <= _PREPARED_FLOATS else None


class TrainingNeighbours:
    """Neighbours of training pairs in the memory: none sees its own pair there, which would tell it its answer.

    Of the means that are taken off first, the own pair is one part in R.
    """

    def __init__(self, memory: Memory, train_set: Embeddings, slots: Tensor, *, moves_images: bool) -> None:
        self.memory, self.train_set, self.slots, self.moves_images = memory, train_set, slots, moves_images
        self.whole: tuple[Neighbours | None, Neighbours] | None = None
        if (len(train_set) + len(train_set.owners)) * NEIGHBOURS <= _PREPARED_FLOATS // 4:
            images = torch.arange(len(train_set) if moves_images else 0).split(_RECALLED_AT_ONCE)
            texts = torch.arange(len(train_set.owners)).split(_RECALLED_AT_ONCE)
            near = joined_neighbours([self.of_images(rows) for rows in images]) if moves_images else None
            self.whole = near, joined_neighbours([self.of_texts(rows) for rows in texts])

    def __call__(self, rows: Tensor, captions: Tensor) -> tuple[Neighbours | None, Neighbours]:
        """Of some images (B,), where the memory moves images, and of some captions (T,), by their rows."""
        if self.whole is None:
            return (self.of_images(rows) if self.moves_images else None), self.of_texts(captions)
        images, texts = self.whole
        return (None if images is None else images[rows]), texts[captions]

    def of_images(self, rows: Tensor) -> Neighbours:
        """Of the images at `rows` (B,)."""
        unit = F.normalize(self.train_set.images[rows].to(self.memory.images.device).float(), dim=1)
        return self.memory.near_images(unit, self.slots[rows].to(unit.device))

    def of_texts(self, rows: Tensor) -> Neighbours:
        """Of the captions at `rows` (T,)."""
        unit = F.normalize(self.train_set.texts[rows].to(self.memory.texts.device).float(), dim=1)
        return self.memory.near_texts(unit, self.slots[self.train_set.owners[rows]].to(unit.device))


class _Chooser:
    """The sum of recalls of the editor as it stands, on a bounded sample of validation."""

    def __init__(self, editor: EditModel, validation: Embeddings, seed: int) -> None:
        self.editor, self.sample = editor, choosing_sample(validation, seed)
        self.near_images: Neighbours | None = None
        self.near_texts: Neighbours | None = None
        if editor.memory is not None:  # what is remembered stays, and only how it is recalled is learnt
            sides = self.sample.images, self.sample.texts
            images, texts = (F.normalize(rows.to(editor.device).float(), dim=1) for rows in sides)
            self.near_texts = editor.memory.near_texts(texts)
            if editor.config.memory == "both":
                self.near_images = editor.memory.near_images(images)
        self.images: PreparedImages | None = None
        if editor.config.memory != "both" and not editor.config.taught:  # which move the images as they learn
            self.images = editor.prepare_images(self.sample.images)

    @torch.no_grad()
    def recall_sum(self) -> float:
        images = self.images
        if images is None:
            images = self.editor.prepare_images(self.sample.images, near=self.near_images)
        columns = torch.arange(len(self.sample.owners))
        scores = []
        for block in columns.split(max(64, 2**22 // self.editor.sae.n_latents)):
            near = None if self.near_texts is None else self.near_texts[block]
            texts = self.editor.prepare_texts(self.sample.texts[block], near=near)
            scores.append(self.editor.score_prepared(images, texts))
        return recall_sum(torch.cat(scores, dim=1), self.sample.owners.to(self.editor.device))
