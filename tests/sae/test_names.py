"""Names of latents: planted concepts must be found by either source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from boresight.embeddings import Embeddings
from boresight.errors import ArtefactError, InputError
from boresight.sae import LatentNames, SparseAutoencoder, name_latents, vocabulary_from_captions
from boresight.sae import names as module
from boresight.sae.config import SaeConfig
from boresight.sae.names import strongest_images
from boresight.sae.rows import Rows
from boresight.sae.vocabulary import terms, terms_by_image, words_beside

CONCEPTS = ["dog", "red car", "beach", "guitar", "snow"]
WIDTH = 8


def planted_sae() -> SparseAutoencoder:
    """Latent i is axis i; latents 5 and 6 never fire, 7 fires rarely on nothing in common."""
    sae = SparseAutoencoder(SaeConfig(width=WIDTH, n_latents=WIDTH, k=3))
    sae.encoder_weight.copy_(torch.eye(WIDTH))
    sae.directions.copy_(torch.eye(WIDTH))
    sae.encoder_bias.copy_(torch.tensor([0.0] * 5 + [-100.0] * 2 + [0.0]))
    return sae


def planted_embeddings(count: int = 300) -> tuple[Embeddings, Tensor]:
    generator = torch.Generator().manual_seed(0)
    present = torch.rand(count, len(CONCEPTS), generator=generator) < 0.2
    bare = (~present.any(1)).nonzero()[:, 0]
    present[bare, torch.arange(len(bare)) % len(CONCEPTS)] = True
    images = torch.full((count, WIDTH), -0.05)
    images[:, : len(CONCEPTS)] += present * (0.5 + torch.rand(count, len(CONCEPTS), generator=generator))
    captions, owners = [], []
    for row in range(count):
        said = [CONCEPTS[i] for i in present[row].nonzero()[:, 0].tolist()]
        for caption in (f"A photo of the {' and the '.join(said)}.", f"There is a {said[0]} in the picture, outdoors"):
            captions.append(caption)
            owners.append(row)
    texts = torch.randn(len(captions), WIDTH, generator=generator)
    return Embeddings.from_arrays(
        images, texts, owners, captions=captions, ids=[f"p{i}" for i in range(count)]
    ), present


def without_captions(embeddings: Embeddings) -> Embeddings:
    return Embeddings.from_arrays(embeddings.images, embeddings.images[:0], [])


def word_embeddings() -> Tensor:
    """Each concept along its axis, all of them deep in a cone of their own."""
    words = 0.3 * torch.eye(WIDTH)[: len(CONCEPTS)]
    cone = torch.zeros(WIDTH)
    cone[6] = 5.0
    return torch.cat([words, torch.zeros(1, WIDTH)]) + cone


def test_terms_keep_words_and_neighbours_of_any_script() -> None:
    assert terms("A red car, and the RED fire-truck!") == {"red", "car", "red car", "fire-truck", "red fire-truck"}
    assert terms("Ein süßes Kätzchen 3 ½") == {"ein", "süßes", "kätzchen", "ein süßes", "süßes kätzchen"}
    assert terms("hearts. Keywords: clock, a red\nbox, very old") == {
        "hearts",
        "keywords",
        "clock",
        "red",
        "box",
        "old",
        "red box",
    }
    assert terms("12 !!") == set()
    assert len(terms("word " * 10_000)) == 2


def test_terms_of_one_slot_have_the_same_words_beside_them() -> None:
    beside = words_beside(
        ["a red star", "a teal star", "one red ring", "one teal ring"], ["red", "teal", "star", "red star"]
    )
    rows = beside.toarray()
    assert np.array_equal(rows[0], rows[1])
    assert rows.sum(1).tolist() == [4, 4, 4, 2]
    assert float(rows[0] @ rows[2]) == 0  # what stands before and what stands after are apart


def test_vocabulary_counts_captions_not_words() -> None:
    captions = ["dog dog dog dog", "a cat", "the cat sleeps", "one dog", "cat sleeps"]
    assert vocabulary_from_captions(captions) == ["cat", "cat sleeps", "dog", "sleeps"]
    assert vocabulary_from_captions(captions, size=1) == ["cat"]
    assert "one" not in vocabulary_from_captions(captions, least=1)
    with pytest.raises(InputError, match="No word stands in 2 captions or more"):
        vocabulary_from_captions(["alone", "42"])


def test_terms_by_image_joins_captions() -> None:
    found, words = terms_by_image(["a cat", "cat nap", "dog"], [1, 1, 2], 3)
    dense = {word: found.toarray()[:, index].tolist() for index, word in enumerate(words)}
    assert dense == {"cat": [0, 1, 0], "nap": [0, 1, 0], "cat nap": [0, 1, 0], "dog": [0, 0, 1]}
    only, words = terms_by_image(["a cat", "cat nap", "dog"], [1, 1, 2], 3, ["dog", "bird"])
    assert words == ["dog", "bird"]
    assert only.toarray().tolist() == [[0, 0], [0, 0], [1, 0]]


@pytest.mark.parametrize("block", [7, 64, 10_000])
def test_strongest_images_against_sorting(block: int) -> None:
    embeddings, _ = planted_embeddings()
    sae = planted_sae()
    rows, strength = strongest_images(sae, Rows(embeddings.images), count=5, block=block)
    dense = sae.encode(embeddings.images).dense()
    for latent in range(WIDTH):
        expected = dense[:, latent].sort(descending=True, stable=True)
        count = min(5, int((expected.values > 0).sum()))
        assert rows[latent, :count].tolist() == expected.indices[:count].tolist()
        assert (rows[latent, count:] == -1).all()
        torch.testing.assert_close(strength[latent, :count], expected.values[:count])


def test_captions_name_planted_concepts() -> None:
    embeddings, present = planted_embeddings()
    found = name_latents(planted_sae(), embeddings=embeddings)
    assert [found.names[i] for i in (0, 2, 3, 4)] == ["dog", "beach", "guitar", "snow"]
    assert found.names[1] == "red car"
    assert found.source == "captions"
    assert (found.certainty[:5] > 0.9).all()
    assert (found.certainty[5:] == 0).all()
    assert str(found).startswith("5 of 5 live latents have a name (100%), mean certainty ")
    torch.testing.assert_close(found.activity, planted_sae().encode(embeddings.images).dense().mean(0))
    assert found.names[5:] == ["", "", ""]
    for latent in range(5):
        assert present[found.examples[latent], latent].all()
    assert (found.activations[:5, :-1] >= found.activations[:5, 1:]).all()


def test_vocabulary_names_by_centred_cosine() -> None:
    images = without_captions(planted_embeddings()[0])
    vocabulary, words = [*CONCEPTS, "nothing"], word_embeddings()
    found = name_latents(planted_sae(), vocabulary=vocabulary, vocabulary_embeddings=words, embeddings=images)
    assert found.names[:5] == CONCEPTS
    assert found.source == "vocabulary"
    centred = torch.nn.functional.normalize(words - words.mean(0), dim=1)
    torch.testing.assert_close(found.certainty[:5], centred[:5].diagonal())
    assert found.names[5:7] == ["", ""]


def test_vocabulary_alone_and_with_images_only() -> None:
    vocabulary, words = [*CONCEPTS, "nothing"], word_embeddings()
    alone = name_latents(planted_sae(), vocabulary=vocabulary, vocabulary_embeddings=words)
    assert alone.names[:5] == CONCEPTS
    assert (alone.examples == -1).all()
    assert alone.ids == []
    images = without_captions(planted_embeddings()[0])
    seen = name_latents(planted_sae(), vocabulary=vocabulary, vocabulary_embeddings=words, embeddings=images)
    assert seen.names[:5] == CONCEPTS
    assert seen.names[5:7] == ["", ""]


def test_captions_choose_among_the_vocabulary_and_no_vector_fills_gaps() -> None:
    embeddings, _ = planted_embeddings()
    words = torch.stack([torch.eye(WIDTH)[0], torch.eye(WIDTH)[2]])
    found = name_latents(planted_sae(), vocabulary=["dog", "beach"], vocabulary_embeddings=words, embeddings=embeddings)
    assert list(found.names) == ["dog", "", "beach", *[""] * (WIDTH - 3)]
    assert found.source == "captions"


def noisy(seed: int, images: int = 400) -> tuple[SparseAutoencoder, Embeddings]:
    """Latents 0 to 4 as planted; all images say 'keywords', and each says two of 300 words that mean nothing."""
    embeddings, present = planted_embeddings(images)
    draw = torch.Generator().manual_seed(seed)
    drawn = torch.randint(300, (images, 2), generator=draw).tolist()
    letters = "abcdefghijklmnopqrst"
    words = [f"{a}{b}zz" for a in letters for b in letters[:15]]
    captions = [
        f"keywords: {', '.join(CONCEPTS[i] for i in row.nonzero()[:, 0].tolist())}, {words[one]}, {words[other]}"
        for row, (one, other) in zip(present, drawn, strict=True)
    ]
    texts = torch.randn(images, WIDTH, generator=draw)
    return planted_sae(), Embeddings.from_arrays(embeddings.images, texts, range(images), captions=captions)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_certainty_and_choice_against_plain_loops(seed: int) -> None:
    sae, embeddings = noisy(seed, 120)
    found = name_latents(sae, embeddings=embeddings)
    codes = sae.encode(embeddings.images).dense()
    said = [terms(caption) for caption in embeddings.captions]
    for latent in range(WIDTH):
        z, best = codes[:, latent].double(), {}
        for word in sorted({word for words in said for word in words}):
            says = torch.tensor([float(word in words) for words in said], dtype=torch.float64)
            base = float(says.mean())
            if says.sum() < 3 or base > 0.5 or z.sum() == 0:
                continue
            sure = (float((z * says).sum() / z.sum()) - base) / (1 - base)
            correlation = float(np.corrcoef(z, says)[0, 1])
            if sure >= 0.3 and correlation * 120**0.5 >= 3.5:
                best[word] = (sure * correlation, sure)
        if not best:
            assert found.names[latent] == ""
            continue
        top = max(score for score, _ in best.values())
        name = found.names[latent]
        assert best[name][0] == pytest.approx(top)
        assert float(found.certainty[latent]) == pytest.approx(best[name][1], abs=1e-5)


def test_words_of_a_template_and_of_chance_name_nothing() -> None:
    sae, embeddings = noisy(0)
    found = name_latents(sae, embeddings=embeddings, least_certainty=0.0)
    assert not any("keywords" in name for name in found.names)
    shuffled = Embeddings.from_arrays(
        embeddings.images[torch.randperm(400, generator=torch.Generator().manual_seed(1))],
        embeddings.texts, range(400), captions=embeddings.captions,
    )  # fmt: skip
    assert set(name_latents(sae, embeddings=shuffled).names) == {""}


def test_a_latent_that_is_on_everywhere_stays_unnamed() -> None:
    sae, embeddings = noisy(0)
    everywhere = embeddings.images.clone()
    everywhere[:, 5] = 1.0 + 0.3 * everywhere[:, 0]  # strongest with dogs, and there without them as well
    sae.encoder_bias[5] = 0.0
    sae.config = SaeConfig(width=WIDTH, n_latents=WIDTH, k=4)
    found = name_latents(
        sae, embeddings=Embeddings.from_arrays(everywhere, embeddings.texts, range(400), captions=embeddings.captions)
    )
    assert found.names[0] == "dog"
    assert found.names[5] == ""
    assert found.activity[5] > found.activity[0]


def test_latents_with_one_name_are_told_apart() -> None:
    sae, embeddings = noisy(0)
    images = embeddings.images.clone()
    images[:, 5] = images[:, 0] + 0.3 * (images[:, 1] > 0) * (torch.arange(400) % 3 == 0)
    sae.encoder_bias[5] = 0.0
    found = name_latents(
        sae, embeddings=Embeddings.from_arrays(images, embeddings.texts, range(400), captions=embeddings.captions)
    )
    assert (found.names[0], found.names[5]) == ("dog", "dog (2)")
    assert found.certainty[0] > found.certainty[5]
    surest = np.array([0.4, 0.9, 0.5, 0.8, 0.7, 0.0])
    apart = module._told_apart(["red", "red", "red", "red", "box", ""], ["kite", "sky", "kite", "kite", "", ""], surest)
    assert apart == ["red (3)", "red", "red (2)", "red, kite", "box", ""]


def test_a_pair_that_adds_nothing_goes() -> None:
    captions = ["rowing couplekiss", "rowing kayak", "a red car", "red box", "a red car"] * 3
    spoken, words = module._candidates(*terms_by_image(captions, range(15), 15))
    assert sorted(words) == ["box", "car", "couplekiss", "kayak", "rowing"]  # most say 'red'
    assert spoken.shape == (15, 5)


def test_many_images_are_heard_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    sae, embeddings = noisy(0)
    monkeypatch.setattr(module, "HEARD", 200)
    monkeypatch.setattr(module, "_PAIRS", 7)
    monkeypatch.setattr(module, "BLOCK", 33)
    assert list(name_latents(sae, embeddings=embeddings).names[:5]) == CONCEPTS


def test_save_load_and_refuse(tmp_path: Path) -> None:
    embeddings, _ = planted_embeddings()
    sae = planted_sae()
    found = name_latents(sae, embeddings=embeddings)
    found.save(tmp_path / "names")
    loaded = LatentNames.load(tmp_path / "names")
    assert list(loaded.names) == list(found.names)
    assert torch.equal(loaded.examples, found.examples)
    assert torch.equal(loaded.certainty, found.certainty)
    assert loaded.ids == found.ids
    assert loaded[2] == "beach"
    assert len(loaded) == WIDTH
    loaded.require_same_autoencoder(sae)
    sae.bias.add_(1.0)
    with pytest.raises(ArtefactError, match="name its latents anew"):
        loaded.require_same_autoencoder(sae)
    with pytest.raises(ArtefactError, match="is no boresight latent-names"):
        LatentNames.load(tmp_path)


def test_refuses_in_one_sentence() -> None:
    embeddings, _ = planted_embeddings(20)
    sae = planted_sae()
    with pytest.raises(InputError, match="Nothing to name latents from"):
        name_latents(sae, embeddings=without_captions(embeddings))
    with pytest.raises(InputError, match="Nothing to name latents from"):
        name_latents(sae)
    with pytest.raises(InputError, match=r"shape \(2, 8\); the vocabulary of 1 words .* need \(1, 8\)"):
        name_latents(sae, vocabulary=["dog"], vocabulary_embeddings=torch.randn(2, 8))
    sae.manifest["encoder"] = "another"
    embeddings.manifest["encoder"] = "clip"
    with pytest.raises(ArtefactError, match="fitted on embeddings of 'another'"):
        name_latents(sae, embeddings=embeddings)


def test_a_vocabulary_names_each_word_once() -> None:
    with pytest.raises(InputError, match="'red' stands in the vocabulary more than once"):
        name_latents(planted_sae(), vocabulary=["red", "blue", "red"], vocabulary_embeddings=torch.ones(3, 8))


def test_captions_without_words_name_nothing() -> None:
    images = planted_embeddings(10)[0].images
    embeddings = Embeddings.from_arrays(images, images, range(10), captions=["12"] * 10)
    assert set(name_latents(planted_sae(), embeddings=embeddings).names) == {""}
