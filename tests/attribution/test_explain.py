"""`explain`: pairs, words, heat maps, pictures of all kinds, black boxes, editors, the csv batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from PIL import Image

import boresight
from boresight.attribution import M2IB, METHODS, explain
from boresight.attribution.grids import normalized
from boresight.attribution.inputs import seen_box
from boresight.attribution.methods.registry import make_method
from boresight.attribution.plots import save_figure
from boresight.data import load_collection
from boresight.embeddings import embed
from boresight.encoders import load_encoder
from boresight.encoders.tokens import Token, aligned_tokens, grouped_words
from boresight.errors import ArtefactError, InputError
from encoder_fixtures import default_fixture  # noqa: F401
from tiny_editor import TINY_EDITOR
from tiny_encoders import FAMILIES, pictures, save_tiny

CAPTIONS = ["a red star", "hello there, don't go!", "it is!"]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("encoders")
    return {name: load_encoder(save_tiny(name, folder / name), dtype="float32") for name in FAMILIES}


@pytest.fixture(scope="module")
def encoder(encoders: dict):
    return encoders["clip"]


class Opaque:
    """An encoder that shows its scores and nothing else."""

    def __init__(self, encoder) -> None:
        self.inner, self.name, self.width, self.fingerprint = encoder, "opaque", encoder.width, encoder.fingerprint
        self.preprocess, self.embed_images, self.embed_texts = (
            encoder.preprocess, encoder.embed_images, encoder.embed_texts,
        )  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(encoders: dict, family: str) -> None:
    encoder = encoders[family]
    found = explain(encoder, pictures(3), CAPTIONS, interaction=True)
    assert len(found) == 3
    scores = (encoder.embed_images(pictures(3)) * encoder.embed_texts(CAPTIONS)).sum(1)
    torch.testing.assert_close(found.score, scores, atol=1e-5, rtol=0)
    for pair, caption in enumerate(CAPTIONS):
        count = len(found.tokens[pair])
        assert found.text[pair, :count].isfinite().all()
        assert found.text[pair, count:].isnan().all()
        assert not found.special[pair, count:].any()
        kept = caption.replace("!", "").split()[0].lower() if family != "siglip2_fixed" else caption.split()[0].lower()
        assert found.words[pair][0].text.lower() == kept
        inside = [place for word in found.words[pair] for place in word.tokens]
        assert sorted(inside) == (~found.special[pair, :count]).nonzero().flatten().tolist()
        for word in found.words[pair]:
            assert word.weight == pytest.approx(float(found.text[pair, list(word.tokens)].sum()), rel=1e-5)
    assert found.interaction.shape == (3, found.text.shape[1], *found.image.shape[1:])
    assert torch.equal(found.interaction[0, 0].isnan(), found.image[0].isnan())
    heat = found.heatmap((20, 30))
    assert heat.shape == (3, 20, 30)
    assert heat.min() == 0
    assert heat.max() == pytest.approx(1)


def test_product_equals_pair_by_pair(encoder) -> None:
    images = pictures(2)
    product = explain(encoder, images, CAPTIONS, pairs="product", batch_size=4)
    assert product.pairs.tolist() == [[i, j] for i in range(2) for j in range(3)]
    assert product.captions == CAPTIONS * 2
    for row, (i, j) in enumerate(product.pairs.tolist()):
        alone = explain(encoder, images[i], CAPTIONS[j])
        torch.testing.assert_close(product.image[row], alone.image[0], atol=1e-3, rtol=1e-4)
        count = len(alone.tokens[0])
        torch.testing.assert_close(product.text[row, :count], alone.text[0], atol=1e-3, rtol=1e-4)
        assert [word.text for word in product.words[row]] == [word.text for word in alone.words[0]]


def test_same_as_the_class(encoder) -> None:
    inputs, texts = encoder.collate(pictures(3)), encoder.tokenize(CAPTIONS)
    image, text = M2IB(encoder.model, layer=1, beta=0.3).attribute(**inputs, **texts, seed=2)
    for opened in (encoder, encoder.towers()):
        assert torch.equal(M2IB(opened, layer=1, beta=0.3).attribute(**inputs, **texts, seed=2)[0], image)
    found = explain(encoder, pictures(3), CAPTIONS, layer=1, beta=0.3, seed=2)
    torch.testing.assert_close(found.image, image)
    torch.testing.assert_close(found.text, text, equal_nan=True)
    assert found.method["beta"] == 0.3
    assert found.method["method"] == "m2ib"


def test_targets(encoder) -> None:
    image = explain(encoder, pictures(1), CAPTIONS[0], target="image")
    assert image.text is None
    assert image.words == []
    text = explain(encoder, pictures(1), CAPTIONS[0], target="text")
    assert text.image is None
    with pytest.raises(InputError, match="no image maps"):
        text.heatmap()
    image.plot()
    text.plot()


@pytest.mark.parametrize("size", [(1, 1), (2, 90), (900, 30), (40, 40)])
@pytest.mark.parametrize("mode", ["L", "RGBA", "RGB", "1", "I;16"])
def test_pictures_of_all_kinds(encoder, mode: str, size: tuple[int, int]) -> None:
    found = explain(encoder, Image.new(mode, size), "a star")
    assert found.image.isfinite().all()
    found.plot()


def test_a_picture_too_oblong_is_refused(encoder) -> None:
    with pytest.raises(InputError, match="10000 x 20 pixels is too oblong"):
        explain(encoder, Image.new("RGB", (10_000, 20)), "a star")
    assert explain(encoder, Image.new("RGB", (10_000, 200)), "a star").image.isfinite().all()


def test_a_long_caption_keeps_its_end(encoder) -> None:
    caption = "a red star and a blue ring and a green cross " * 3
    encoder._warned = False
    with pytest.warns(UserWarning, match="longer than the 16 tokens"):
        found = explain(encoder, pictures(1), caption)
    assert len(found.tokens[0]) == 16
    assert found.special[0].tolist() == [True, *[False] * 14, True]
    assert "".join(word.text for word in found.words[0]) in caption.replace(" ", "")


@pytest.mark.parametrize("method", ["occlusion", "rise", "kernelshap", "random", "uniform"])
def test_black_boxes(encoder, method: str) -> None:
    options = {"rise": {"n_masks": 8}, "kernelshap": {"n_samples": 128}}.get(method, {})
    found = explain(Opaque(encoder), pictures(2), CAPTIONS[:2], method=method, **options)
    assert found.image.shape == (2, 7, 7)
    assert found.image.isfinite().all()
    assert found.tokens == [["a", "red", "star"], ["hello", "there,", "don't", "go!"]]
    assert found.text[1].isfinite().all()
    torch.testing.assert_close(
        found.score, (encoder.embed_images(pictures(2)) * encoder.embed_texts(CAPTIONS[:2])).sum(1)
    )
    with pytest.raises(InputError, match="'m2ib' cannot explain this encoder: opaque does not open"):
        explain(Opaque(encoder), pictures(1), CAPTIONS[0])


def test_black_box_occlusion_is_the_drop_of_the_score(encoder) -> None:
    picture, caption = pictures(1)[0], CAPTIONS[0]
    found = explain(Opaque(encoder), picture, caption, method="occlusion")
    image, text = encoder.embed_images([picture])[0], encoder.embed_texts([caption])[0]
    without = encoder.embed_texts(["a star"])[0]
    assert float(found.text[0, 1]) == pytest.approx(float(image @ text - image @ without), abs=1e-5)
    pixels = encoder.preprocess(picture)[None].clone()
    pixels[..., :4, :4] = 0  # 32 pixels by 7 parts: 4 for each, and the rest for the last
    hidden = encoder.embed_images(pixels)[0]
    assert float(found.image[0, 0, 0]) == pytest.approx(float(image @ text - hidden @ text), abs=1e-5)


def test_concepts_of_an_editor(default, encoder) -> None:
    editor = boresight.CaptionEditor.load(TINY_EDITOR)
    found = explain(default, pictures(2), CAPTIONS[:2], editor=editor)
    expected = editor.explain_edit(default.embed_images(pictures(2))[1], default.embed_texts(CAPTIONS[:2])[1])
    assert found.concepts[1].latents[0].index == expected.latents[0].index
    assert found.concepts[1].edited_score == pytest.approx(expected.edited_score, abs=1e-5)
    found.plot(1)
    with pytest.raises(ArtefactError, match="width"):
        explain(encoder, pictures(1), CAPTIONS[0], editor=editor)


def test_the_box_that_a_model_sees(encoder, encoders: dict) -> None:
    assert seen_box(encoder, (50, 50)).tolist() == [0, 0, 1, 1]
    assert seen_box(encoder, (200, 100)).tolist() == pytest.approx([0.25, 0, 0.75, 1], abs=0.02)
    assert seen_box(encoder, (100, 300)).tolist() == pytest.approx([0, 1 / 3, 1, 2 / 3], abs=0.02)
    assert seen_box(encoders["siglip"], (200, 100)).tolist() == [0, 0, 1, 1]
    assert seen_box(encoders["siglip2_naflex"], (200, 100)).tolist() == [0, 0, 1, 1]
    assert seen_box(encoder, (1, 1)).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("size", "box"),
    [((200, 100), [0, -0.5, 1, 1.5]), ((100, 200), [-0.5, 0, 1.5, 1]), ((300, 100), [1 / 6, -0.5, 5 / 6, 1.5]),
     ((50, 50), [-0.5, -0.5, 1.5, 1.5])],
)  # fmt: skip
def test_a_crop_larger_than_the_picture_sees_padding(
    size: tuple[int, int], box: list[float], default, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default.image_processor, "size", {"shortest_edge": 48})  # and the crop is 96
    assert seen_box(default, size).tolist() == pytest.approx(box, abs=0.05)
    found = explain(default, Image.new("RGB", size, "red"), "a cup", method="grad-cam")
    assert found.boxes[0].tolist() == pytest.approx(box, abs=0.05)


def test_normalised_maps() -> None:
    values = torch.tensor([[-2.0, 0.0], [1.0, 2.0]])
    torch.testing.assert_close(normalized(values, "minmax"), (values + 2) / 4)
    torch.testing.assert_close(normalized(values, "maxabs"), values / 2)
    assert normalized(values, None) is values
    assert normalized(torch.full((2, 2), 3.0), "minmax").eq(0).all()
    with pytest.raises(InputError, match="'softmax'"):
        normalized(values, "softmax")


def test_words() -> None:
    tokens = [
        Token("<s>", 0, 0, True), Token("un", 0, 2, False), Token("kind", 2, 6, False), Token(",", 6, 7, False),
        Token("dog", 8, 11, False), Token("'s", 11, 13, False), Token("犬が", 14, 16, False), Token("</s>", 0, 0, True),
    ]  # fmt: skip
    assert grouped_words("unkind, dog's 犬が", tokens) == [
        ("unkind", (1, 2)),
        (",", (3,)),
        ("dog's", (4, 5)),
        ("犬が", (6,)),
    ]
    assert grouped_words("", []) == []


def test_tokens_found_in_the_caption() -> None:
    tokens = aligned_tokens("A Red  star", [None, b"a ", b"red ", b"st", b"ar ", b"nowhere", None])
    assert [(token.start, token.end) for token in tokens] == [
        (0, 0),
        (0, 1),
        (2, 5),
        (7, 9),
        (9, 11),
        (11, 11),
        (11, 11),
    ]
    assert [token.special for token in tokens] == [True, False, False, False, False, False, True]


def test_bad_input(encoder, tmp_path: Path) -> None:
    (tmp_path / "other.png").touch()  # of an empty folder it is said that it may have gone
    image = pictures(1)[0]
    for arguments, options, word in (
        (([], []), {}, "captions is empty"), (([], ["a"]), {}, "images is empty"), (([image], ["a", "b"]), {}, "zip"),
        ((image, " "), {}, "Caption 0 is empty"), ((image, "a"), {"method": "magic"}, "no method 'magic'"),
        ((image, "a"), {"bet": 1}, "no option 'bet'"), ((image, "a"), {"layer": 9}, "no hidden states 9"),
        ((image, "a"), {"pairs": "all"}, "'all' is unknown"), ((tmp_path / "no.png", "a"), {}, "no.png"),
        ((3, "a"), {}, "Image 0 is of type int"), ((image, [3]), {}, "not a string"),
        ((torch.zeros(3, 9, 9), "a"), {}, "Image 0 is of type Tensor; pass a PIL picture"),
        (("a dog", __file__), {}, r"test_explain\.py' is a file and 'a dog' is none; pass the images before"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=word):
            explain(encoder, *arguments, **options)
    with pytest.raises(InputError, match="encoder is of type str, which embeds nothing"):
        explain("a model", image, "a b")
    found = explain(encoder, image, "a b")
    for wrong, options in ((7, {}), (0, {"word": 0}), (-2, {})):
        with pytest.raises(InputError, match=r"no pair|no interaction"):
            found.plot(wrong, **options)
    with pytest.raises(InputError, match="no word 5"):
        explain(encoder, image, "a b", interaction=True).plot(word=5)
    with pytest.raises(InputError, match="figure cannot be written"):
        save_figure(found.plot(), tmp_path / "figure.docx")


def test_every_method_by_name(encoder) -> None:
    quick = {"rise": {"n_masks": 8}, "kernelshap": {"n_samples": 64}, "integrated-gradients": {"steps": 4}}
    for name in METHODS:
        found = explain(encoder, pictures(2), CAPTIONS[:2], method=name, **quick.get(name, {}))
        assert found.image.isfinite().all(), name
        assert found.text[~found.text.isnan()].isfinite().all(), name
        make_method(name, encoder.model)


def test_a_picture_in_hand_is_explained_and_embedded_as_its_file(encoder, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    clear = pictures(1)[0].convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    clear.save(tmp_path / "turned.png", exif=exif)
    file, at_hand = tmp_path / "turned.png", Image.open(tmp_path / "turned.png")
    collection = load_collection(Dataset.from_dict({"image": [str(file)], "text": ["a red star"]}))
    embedded = embed(encoder, collection, dtype="float32").images
    torch.testing.assert_close(encoder.embed_images([at_hand]), embedded)
    torch.testing.assert_close(encoder.preprocess(at_hand), encoder.preprocess(collection.image(0)))
    one, other = (explain(encoder, source, "a red star") for source in (file, at_hand))
    torch.testing.assert_close(one.image, other.image)
    torch.testing.assert_close(one.boxes, other.boxes)
