"""Candidates of any store come in the order of the editor's own scores, in every form of the edit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from boresight.editing import EditorConfig, PlainScorer
from boresight.editing.scorer import Scorer
from boresight.errors import InputError
from boresight.search import rerank
from editing_world import WIDTH, world, world_sae
from search_world import CONFIGS, editor_of, stretched

CONFIGS_HERE = {**CONFIGS, "residual, divided": EditorConfig(form="residual", length_exponent=1.0)}


class Words:
    """An encoder of words alone: each has a direction."""

    name, fingerprint, width = "world", "", WIDTH

    def embed_texts(self, texts: list[str]) -> torch.Tensor:
        draws = [torch.Generator().manual_seed(sum(map(ord, text))) for text in texts]
        return torch.stack([F.normalize(torch.randn(WIDTH, generator=draw), dim=0) for draw in draws])


@pytest.mark.parametrize("name", [None, *CONFIGS_HERE])
def test_the_order_is_that_of_the_editors_scores(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boresight.search.reranking._AT_ONCE", 7)
    monkeypatch.setitem(CONFIGS, "residual, divided", CONFIGS_HERE["residual, divided"])
    candidates = stretched(world(world_sae(), 40, 3))
    scorer: Scorer = PlainScorer() if name is None else editor_of(name)
    texts = candidates.texts[:2]
    images, captions = scorer.prepare_images(candidates.images), scorer.prepare_texts(F.normalize(texts, dim=1))
    scores = scorer.score_prepared(images, captions)
    for query, wanted in ((texts[0], scores[:, 0]), (texts, scores.mean(1))):
        given = None if name is None else scorer
        found = rerank(given, query, candidates.images, ids=candidates.ids)
        order = torch.argsort(wanted, descending=True, stable=True).tolist()
        assert [one["id"] for one in found] == [candidates.ids[row] for row in order]
        np.testing.assert_allclose([one["score"] for one in found], wanted[order], atol=1e-6)
        assert rerank(given, query, candidates.images.numpy(), top_k=3) == [
            {"id": row, "score": one["score"]} for row, one in zip(order[:3], found, strict=False)
        ]
        assert rerank(given, query, images, ids=candidates.ids) == found


def test_a_sentence_is_embedded_by_the_encoder() -> None:
    candidates = world(world_sae(), 9, 0).images
    words = Words()
    wanted = rerank(None, words.embed_texts(["red kite"])[0], candidates)
    assert rerank(None, "red kite", candidates, encoder=words) == wanted  # type: ignore[arg-type]
    both = rerank(None, ["red kite", "a dog"], candidates, encoder=words)  # type: ignore[arg-type]
    assert both == rerank(None, words.embed_texts(["red kite", "a dog"]), candidates)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"query": "a dog"}, "in words; pass the `encoder`"),
        ({"query": " ", "encoder": Words()}, "empty or no text"),
        ({"query": torch.zeros(WIDTH)}, "all zero"),
        ({"query": torch.zeros(0, WIDTH)}, r"shape \(0, 24\)"),
        ({"ids": ["a"]}, "9 images and 1 ids"),
        ({"top_k": 0}, "top_k is 0"),
        ({"images": torch.full((2, WIDTH), torch.nan)}, "NaN"),
        ({"images": torch.ones(WIDTH)}, "one row a candidate"),
        ({"query": torch.ones(3)}, "do not fit|width"),
    ],
)
def test_what_cannot_be_ranked_is_one_sentence(options: dict, said: str) -> None:
    images = world(world_sae(), 9, 0).images
    given = {"query": images[0], "images": images, **options}
    with pytest.raises(InputError, match=said):
        rerank(editor_of("gated"), given.pop("query"), given.pop("images"), **given)
