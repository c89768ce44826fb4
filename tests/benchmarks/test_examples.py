"""Queries worth looking at: which are picked, and what is kept of them."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image

from boresight.benchmarks.examples import retrieval_examples
from boresight.data.worlds.scenes import make_scenes
from boresight.editing.scorer import ways
from boresight.embeddings import Embeddings
from boresight.evaluation import evaluate_retrieval


def test_examples_of_plain_retrieval_are_the_extremes(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(20, 4, generator=random), dim=1)
    texts = torch.nn.functional.normalize(images + 0.5 * torch.randn(20, 4, generator=random), dim=1)
    scenes = make_scenes(20, size=32)
    embeddings = Embeddings.from_arrays(
        images, texts, list(range(20)), ids=scenes.ids, captions=[f"caption {row}" for row in range(20)]
    )
    result = evaluate_retrieval(embeddings, device="cpu")
    examples = retrieval_examples(embeddings, scenes, tmp_path, {"plain": result}, ways(None))
    assert [example["rule"] for example in examples] == ["among the best"] * 2 + ["among the worst"] * 2 + [
        "drawn at random"
    ] * 2
    assert len({example["caption"] for example in examples}) == 6
    ranks = [result.t2i_ranks[int(example["caption"].split()[1])] for example in examples]
    assert ranks[:2] == sorted(result.t2i_ranks)[:2]
    assert ranks[2:4] == sorted(result.t2i_ranks)[:-3:-1]
    for example, rank in zip(examples, ranks, strict=True):
        assert example["ranks"] == {"plain": rank}
        ranking = example["rankings"]["plain"]
        assert [image["rank"] for image in ranking if image["right"]] == [rank]
        for image in ranking:
            with Image.open(io.BytesIO((tmp_path / image["picture"]).read_bytes())) as picture:
                assert (picture.format, picture.size) == ("WEBP", (32, 32))
