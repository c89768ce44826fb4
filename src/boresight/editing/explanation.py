"""Why one image scores as it does under one caption: parts that sum to the score, and what moved each of them.

The score of an edit is an inner product over a length, less two corrections. The edited image y (before a gate) is the
sum of its kept latents, of what a memory added, and of the rest; the caption vector r * u is the sum of the caption
itself and of what the text head, a memory and a gate changed:

    s = <y, r * u> / l^p - b - c = sum over the image's parts a and the caption's parts v of <a, v> / l^p, less b and c

so the parts of either side sum to the score, whatever the form and the exponent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from boresight.brief import Brief
from boresight.editing.masks import HALF
from boresight.editing.memory import Memory, Recall
from boresight.editing.model import EditModel
from boresight.editing.scorer import PreparedImages
from boresight.embeddings.embeddings import Embeddings
from boresight.errors import InputError
from boresight.sae.names import LatentNames
from boresight.tables import rounded_to_sum

KEPT, LEFT, MOVED, REST = "latents kept", "latents dropped, what is left", "memory of images", "rest of the image"
CAPTION, HEAD, PICTURED, GATE = "caption", "text head", "memory", "gate"
IMAGE_HUBNESS, TEXT_HUBNESS = "hubness of the image", "hubness of the caption"
SHOWN_DIGITS = 4


@dataclass(frozen=True)
class LatentEffect:
    """One active latent of the image under the caption.

    Attributes:
        index: of the latent.
        name: of the latent, '' where it has none.
        certainty: how sure the name is (`LatentNames.certainty`), 0 where that is not known.
        activation: z, at the scale of the embeddings.
        mask: m in [0, 1], how much of it the caption keeps.
        kept: its part of the score, what of it is in the edited image times <d, r * u> / (|x| l^p): so much lower the
            score would be without it. That is z m <d, r * u> / (|x| l^p), the gate r being 1 where there is none.
        dropped: what the edit of this latent changed, `kept` less what z itself would add.
    """

    index: int
    name: str
    activation: float
    mask: float
    kept: float
    dropped: float
    certainty: float = 0.0

    @property
    def label(self) -> str:
        """The name, or 'latent 17'."""
        return self.name or f"latent {self.index}"


@dataclass(frozen=True)
class RememberedPair:
    """A training pair that the memory recalled for the image or for the caption.

    Attributes:
        row: in the memory.
        weight: in [0, 1], among the neighbours that were recalled.
        effect: its part of the score; all of them, and the room they took from what they moved, are the memory's part.
        image_id: of its image, '' where the editor does not know.
        captions: of its image, empty where they were not given.
    """

    row: int
    weight: float
    effect: float
    image_id: str = ""
    captions: tuple[str, ...] = ()

    def __str__(self) -> str:
        known = " ".join([*(f"'{caption}'" for caption in self.captions[:1]), self.image_id or f"pair {self.row}"])
        return f"{known:<48.48} weight {self.weight:.2f}  score {self.effect:+.4f}"


@dataclass(frozen=True, repr=False)
class Explanation(Brief):
    """What an edit did to one pair, in parts that sum to `edited_score`.

    Attributes:
        plain_score: cosine of the image and the caption, as the encoder gives them.
        edited_score: the editor's score.
        grid: part of the image -> part of the caption -> its share of the score. Rows: the latents that are kept, what
            is left of those that are dropped, what the memory added to the image, and the rest, which no latent
            carries. Columns: the caption's own vector and what the text head, the memory and the gate changed of it.
            An editor has the rows and columns of its form.
        hubness: 'hubness of the image', 'hubness of the caption' -> what is taken off, the same for whatever they are
            matched with.
        length: l^p, by which the undivided score and so all of `grid` and `latents` was divided.
        latents: every active latent, the largest effect on the score first; empty where the form has no latents.
        image_memory, text_memory: the remembered pairs that moved the image and the caption vector, the largest effect
            first; empty without a memory of that side, and where it moves nothing.
        top: how many of each are printed.
    """

    plain_score: float
    edited_score: float
    grid: Mapping[str, Mapping[str, float]]
    hubness: Mapping[str, float]
    length: float
    latents: tuple[LatentEffect, ...]
    image_memory: tuple[RememberedPair, ...] = ()
    text_memory: tuple[RememberedPair, ...] = ()
    top: int = 10

    def _parts(self) -> dict[str, str]:
        return {
            "plain_score": f"{self.plain_score:.4f}",
            "edited_score": f"{self.edited_score:.4f}",
            "latents": f"{len(self._latents(kept=True))} kept, {len(self._latents(kept=False))} dropped",
        }

    @property
    def parts(self) -> dict[str, float]:
        """What the image's parts add to the score, less the hubness of either side: sums to `edited_score`."""
        return {name: sum(row.values()) for name, row in self.grid.items()} | self._taken_off

    @property
    def caption_parts(self) -> dict[str, float]:
        """What the caption's parts add, less the hubness of either side: sums to `edited_score` as well.

        'gate' is what the gate changed: the undivided score with it less that without it.
        """
        columns = next(iter(self.grid.values()))
        return {name: sum(row[name] for row in self.grid.values()) for name in columns} | self._taken_off

    @property
    def unlisted(self) -> dict[str, float]:
        """What of a part the listed latents and pairs (`top` of them) leave: 'latents kept' and of either memory.

        Of a memory that is the other pairs, less the room that all took from what they moved. Without 'latents kept'
        where all of these are listed.
        """
        parts, of_caption = self.parts, self.caption_parts
        listed = {
            MOVED: (parts.get(MOVED), [pair.effect for pair in self.image_memory[: self.top]]),
            PICTURED: (of_caption.get(PICTURED), [pair.effect for pair in self.text_memory[: self.top]]),
        }
        if len(self._latents(kept=True)) > self.top:
            listed[KEPT] = parts[KEPT], [latent.kept for latent in self.kept]
        return {name: part - sum(effects) for name, (part, effects) in listed.items() if part is not None}

    def rounded(self, digits: int = SHOWN_DIGITS) -> Explanation:
        """The same in figures as they are shown, which add up: grid and hubness to the score, latents to their rows."""
        columns = list(next(iter(self.grid.values())))
        cells = [[row[name] for name in columns] for row in self.grid.values()]
        if self.hubness:
            taken_off = [[*([0.0] * len(columns)), amount] for amount in self._taken_off.values()]
            cells = [[*row, 0.0] for row in cells] + taken_off
        cells = rounded_to_sum(cells, self.edited_score, digits)
        taken = zip(self.hubness, cells[len(self.grid) :], strict=True)

        whole = {name: sum(row) for name, row in zip(self.grid, cells, strict=False)}
        carried: dict[int, float] = {}
        for part, latents in ((KEPT, self._latents(kept=True)), (LEFT, self._latents(kept=False))):
            if latents:
                (amounts,) = rounded_to_sum([[latent.kept for latent in latents]], whole[part], digits)
                carried |= {latent.index: amount for latent, amount in zip(latents, amounts, strict=True)}

        def effects(pairs: Sequence[RememberedPair]) -> tuple[RememberedPair, ...]:
            return tuple(replace(pair, effect=round(pair.effect, digits)) for pair in pairs)

        return replace(
            self,
            plain_score=round(self.plain_score, digits),
            edited_score=round(self.edited_score, digits),
            grid={name: dict(zip(columns, row, strict=False)) for name, row in zip(self.grid, cells, strict=False)},
            hubness={name: -row[-1] for name, row in taken},
            latents=tuple(
                replace(latent, kept=carried[latent.index], dropped=round(latent.dropped, digits))
                for latent in self.latents
            ),
            image_memory=effects(self.image_memory),
            text_memory=effects(self.text_memory),
        )

    @property
    def _taken_off(self) -> dict[str, float]:
        return {name: -amount for name, amount in self.hubness.items()}

    @property
    def kept(self) -> tuple[LatentEffect, ...]:
        """Latents that the caption keeps by half or more, the largest part of the score first."""
        return tuple(self._latents(kept=True)[: self.top])

    @property
    def dropped(self) -> tuple[LatentEffect, ...]:
        """Latents that the caption drops by more than half, the one whose loss changed the score most first."""
        return tuple(self._latents(kept=False)[: self.top])

    def _latents(self, *, kept: bool) -> list[LatentEffect]:
        chosen = [latent for latent in self.latents if (latent.mask >= HALF) == kept]
        return sorted(chosen, key=lambda latent: -abs(latent.kept if kept else latent.dropped))

    def __str__(self) -> str:
        shown, columns = self.rounded(), list(next(iter(self.grid.values())))
        lines = [f"edited {shown.edited_score:.4f}, plain {shown.plain_score:.4f}", ""]
        lines.append(_line("part of the score", [*columns, "all"]))
        lines += [_line(name, [*row.values(), shown.parts[name]]) for name, row in shown.grid.items()]
        lines += [_line(name, [""] * len(columns) + [amount]) for name, amount in shown._taken_off.items()]
        lines.append(_line("all", [*(shown.caption_parts[name] for name in columns), shown.edited_score]))
        for title, latents in (("kept", shown.kept), ("dropped", shown.dropped)):
            lines += ["", f"latents {title}, by their effect on the score:" if latents else f"latents {title}: none"]
            for latent in latents:
                effect = latent.kept if title == "kept" else latent.dropped
                sure = f"sure {latent.certainty:.2f}" if latent.certainty else ""
                numbers = f"{sure:<9}  z {latent.activation:7.3f}  m {latent.mask:.2f}  score {effect:+.4f}"
                lines.append(f"  {latent.label:<24.24} {numbers}")
            if title == "kept" and KEPT in shown.unlisted:
                lines.append(f"  {'all others':<60} score {shown.unlisted[KEPT]:+.4f}")
        for title, part, pairs in (
            ("image", MOVED, shown.image_memory),
            ("caption", PICTURED, shown.text_memory),
        ):
            if pairs:
                lines += ["", f"remembered pairs that moved the {title} most:"]
                lines += [f"  {pair}" for pair in pairs[: self.top]]
                lines.append(f"  {'all others, less the room they take':<60} score {shown.unlisted[part]:+.4f}")
        return "\n".join(lines)


def _line(name: str, cells: Sequence[str | float]) -> str:
    return f"{name:<30}" + "".join(f"{cell:>11}" if isinstance(cell, str) else f"{cell:>+11.4f}" for cell in cells)


@torch.no_grad()
def explain_edit(
    editor: EditModel,
    image: Tensor,
    text: Tensor,
    *,
    names: Sequence[str] | LatentNames | None = None,
    remembered: Embeddings | None = None,
    top: int = 10,
) -> Explanation:
    """`CaptionEditor.explain_edit`. image, text: (1, d)."""
    image, text = editor.checked(image, "the image"), editor.checked(text, "the text")
    if names is not None and len(names) != editor.sae.n_latents:
        raise InputError(f"There are {len(names)} names for {editor.sae.n_latents} latents; give one for each.")
    image, text = image.to(editor.device).float(), text.to(editor.device).float()
    images, texts = editor.prepare_images(image), editor.prepare_texts(text)
    length = float(editor.lengths(images, texts)) ** editor.config.length_exponent if editor.config.divides else 1.0
    x, t, u, gate = (
        F.normalize(image, dim=1)[0],
        F.normalize(text, dim=1)[0],
        editor.text(text)[0],
        editor.gate(text)[0],
    )
    own = F.normalize(t + editor.head_map @ t + editor.head_bias, dim=0)  # u before the memory moved it
    columns = {CAPTION: t}
    if editor.config.text == "finetuned":
        columns[HEAD] = own - t
    if editor.memory is not None:
        columns[PICTURED] = u - own
    if editor.config.has_gate:
        columns[GATE] = (gate - 1) * u

    edited, rows, latents = _latents(editor, image, text, images, gate * u / length, names)
    image_memory: tuple[RememberedPair, ...] = ()
    text_memory: tuple[RememberedPair, ...] = ()
    if (memory := editor.memory) is not None:
        recall = memory.recall_texts(t, own)
        text_memory = _pairs(memory, recall, edited / length, remembered)
        if editor.config.memory == "both":
            recall = memory.recall_images(x, editor.head_map)
            image_memory = _pairs(memory, recall, gate * u / length, remembered)
            rows[MOVED] = recall.moved
    rows[REST] = edited - sum(rows.values(), torch.zeros_like(edited))
    hubness = {IMAGE_HUBNESS: images.bias, TEXT_HUBNESS: texts.bias}
    return Explanation(
        plain_score=float(x @ t),
        edited_score=float(editor.score_prepared(images, texts)),
        grid={
            name: {part: float(row @ column) / length for part, column in columns.items()} for name, row in rows.items()
        },
        hubness={name: float(bias) for name, bias in hubness.items() if bias is not None},
        length=length,
        latents=latents,
        image_memory=image_memory,
        text_memory=text_memory,
        top=top,
    )


def _latents(
    editor: EditModel,
    image: Tensor,
    text: Tensor,
    prepared: PreparedImages,
    query: Tensor,
    names: Sequence[str] | LatentNames | None,
) -> tuple[Tensor, dict[str, Tensor], tuple[LatentEffect, ...]]:
    """The edited image before a gate (d,), what of it latents carry, kept and dropped, and the effect of each latent.

    All over the image's length. query: (d,), whose inner product with a part of the image is its part of the score.
    """
    if not editor.config.has_latents:
        return prepared.base[0], {}, ()
    indices = prepared.indices[0]
    activations, mask = editor.sae.encode(image).values[0], editor.mask(text)[0, indices]
    directions, whole = editor.sae.directions[indices], activations / image.norm()
    changed = prepared.values[0] * (mask - editor.config.offset)
    amounts = changed + editor.held * whole  # with what of the latents is in the base
    rows = {name: (amounts * chosen) @ directions for name, chosen in ((KEPT, mask >= HALF), (LEFT, mask < HALF))}
    along = directions @ query
    columns = indices, activations, mask, amounts * along, (amounts - whole) * along
    table = zip(*(column.tolist() for column in columns), strict=True)
    certainty = names.certainty.tolist() if isinstance(names, LatentNames) else [0.0] * editor.sae.n_latents
    latents = [
        LatentEffect(index, "" if names is None else str(names[index]), z, m, kept, dropped, certainty[index])
        for index, z, m, kept, dropped in table
        if z > 0
    ]
    latents.sort(key=lambda latent: -max(abs(latent.kept), abs(latent.dropped)))
    return prepared.base[0] + changed @ directions, rows, tuple(latents)


def _pairs(memory: Memory, recall: Recall, query: Tensor, remembered: Embeddings | None) -> tuple[RememberedPair, ...]:
    """The largest effect first; none where the memory is silent. query: (d,), as for `_latents`."""
    if not recall.added.any():
        return ()
    ids = [memory.ids[row] if row < len(memory.ids) else "" for row in recall.rows.tolist()]
    wanted, captions = set(ids), {}
    if remembered is not None and remembered.captions is not None:
        for row, image_id in enumerate(remembered.ids):
            if image_id in wanted:
                owned = (remembered.owners == row).nonzero()[:, 0].tolist()
                captions[image_id] = tuple(remembered.captions[caption] for caption in owned)
    table = zip(recall.rows.tolist(), recall.weights.tolist(), (recall.added @ query).tolist(), ids, strict=True)
    pairs = [
        RememberedPair(row, weight, effect, image_id, captions.get(image_id, ()))
        for row, weight, effect, image_id in table
    ]
    return tuple(sorted(pairs, key=lambda pair: -abs(pair.effect)))
