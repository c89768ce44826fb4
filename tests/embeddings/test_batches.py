"""Pictures and captions a batch at a time: order, what is wrong with which, and what the encoder saw at once."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from tests.support.fake_encoder import FakeEncoder, make_collection

from boresight.embeddings.batches import caption_batches, embed_captions, embed_pictures, picture_batches, pixels_ahead
from boresight.errors import InputError


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 3, 7, 20])
def test_pictures_in_order_with_what_is_wrong_beside_them(workers: int, batch_size: int) -> None:
    encoder, collection = FakeEncoder(), make_collection(7, corrupt=[2, 6])
    rows, wrong = embed_pictures(encoder, collection.image, 7, batch_size=batch_size, workers=workers)
    assert [row for row, error in enumerate(wrong) if error is not None] == [2, 6]
    assert "id-2" in str(wrong[2])
    assert encoder.images == [0, 1, 3, 4, 5]
    assert torch.equal(rows, torch.stack([encoder._vector(number) for number in (0, 1, 3, 4, 5)]))


def test_a_batch_of_pictures_holds_those_that_cannot_be_read() -> None:
    encoder, collection = FakeEncoder(), make_collection(5, corrupt=[0, 1])
    batches = list(picture_batches(encoder, collection.image, 5, batch_size=2))
    assert [(len(rows), len(wrong)) for rows, wrong in batches] == [(0, 2), (2, 2), (1, 1)]
    assert batches[0][0].shape == (0, encoder.width)


def test_one_batch_is_read_ahead_and_no_more() -> None:
    encoder, collection, opened = FakeEncoder(), make_collection(12), []

    def opening(row: int) -> Image.Image:
        opened.append(row)
        return collection.image(row)

    batches = picture_batches(encoder, opening, 12, batch_size=3, workers=2)
    next(batches)
    assert max(opened) <= 5
    batches.close()
    assert max(opened) <= 5


def test_the_first_picture_that_cannot_be_read_is_refused_where_asked() -> None:
    encoder, collection = FakeEncoder(), make_collection(9, corrupt=[4])
    with pytest.raises(InputError, match="id-4"):
        embed_pictures(encoder, collection.image, 9, batch_size=2, refuse=True)
    assert encoder.images == [0, 1, 2, 3, 5][: len(encoder.images)]


def test_a_picture_that_cannot_be_preprocessed_is_named() -> None:
    class Strict(FakeEncoder):
        def preprocess(self, image: Image.Image) -> torch.Tensor:
            raise ValueError("one channel")

    collection = make_collection(1)
    for name_of, what in ((None, "A picture"), (collection.ids.__getitem__, "The picture of image 'id-0 é'")):
        (error,) = pixels_ahead(Strict(), collection.image, [0], workers=1, depth=1, name_of=name_of)
        assert str(error) == f"{what} cannot be preprocessed (one channel); drop or replace it."


def test_captions_by_the_batch_count_those_that_are_longer() -> None:
    encoder, texts = FakeEncoder(limit=3), ["a", "long one", "bb", "another", "c"]
    batches = list(caption_batches(encoder, texts, batch_size=2))
    assert [(texts[rows], cut) for rows, _, cut in batches] == [(texts[:2], 1), (texts[2:4], 1), (texts[4:], 0)]
    with pytest.warns(UserWarning, match="2 captions were longer than the 3 tokens"):
        embedded, cut = embed_captions(encoder, texts, batch_size=2)
    assert cut == 2
    assert torch.equal(embedded, torch.cat([rows for _, rows, _ in batches]))


@pytest.mark.parametrize(("texts", "batch_size"), [([], 4), (["a"], 0)])
def test_no_caption_and_no_batch_are_refused(texts: list[str], batch_size: int) -> None:
    with pytest.raises(InputError, match="both must be at least 1"):
        embed_captions(FakeEncoder(), texts, batch_size=batch_size)
