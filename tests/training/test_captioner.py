"""The captioner: its mask, its loss, what it reads of the towers, and the captions it writes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from boresight.encoders import load_encoder
from boresight.encoders.hf import TransformersEncoder
from boresight.errors import ArtefactError, InputError
from boresight.storage import save_artefact
from boresight.training.captioner import (
    IGNORED,
    Captioner,
    CaptionerConfig,
    caption_targets,
    captioning_loss,
    prefix_mask,
    prefix_states,
    special_ends,
)
from boresight.training.captioning import _text, write_captions
from tiny_encoders import pictures, save_tiny
from worlds.small_clip import SmallClipConfig, small_clip, small_processor, train_tokenizer

SMALL = CaptionerConfig(image_width=5, text_width=7, vocabulary=11, width=12, layers=2, heads=3, queries=4)
COLOURS = ("red", "green", "blue", "orange", "purple", "white", "black", "gray")
CAPTIONS = [f"a plain picture, all of it {colour}" for colour in COLOURS[:4]] + [*COLOURS[4:]]


def shaken(config: CaptionerConfig, seed: int = 0, scale: float = 0.4) -> Captioner:
    """A captioner no weight of which is zero or one."""
    captioner = Captioner(config, seed).double().eval()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in captioner.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=random, dtype=torch.float64)
    return captioner


def states(rows: int, seed: int, *shapes: tuple[int, int]) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, *shape, generator=random, dtype=torch.float64) for shape in shapes]


@pytest.fixture(scope="module")
def overfit_world():
    """A small CLIP of random weights and eight plain pictures."""
    shape = SmallClipConfig(
        image_size=24, patch_size=12, image_width=16, image_layers=1, image_heads=2,
        text_width=16, text_layers=1, text_heads=2, projection=8, vocabulary=600,
    )  # fmt: skip
    tokenizer = train_tokenizer(CAPTIONS, shape)
    model = small_clip(tokenizer, shape, seed=1)
    processor = small_processor(tokenizer, shape)
    encoder = TransformersEncoder(
        model, tokenizer, processor.image_processor, name="small", fingerprint="0", device=torch.device("cpu"),
        dtype=torch.float32,
    )  # fmt: skip
    return encoder, [Image.new("RGB", (24, 24), colour) for colour in COLOURS]


def test_the_mask_is_the_published_one():
    o, x = False, True
    assert prefix_mask(2, 3).tolist() == [
        [x, x, o, o, o],
        [x, x, o, o, o],
        [x, x, x, o, o],
        [x, x, x, x, o],
        [x, x, x, x, x],
    ]
    assert prefix_mask(3, 1).tolist() == [[x, x, x, o], [x, x, x, o], [x, x, x, o], [x, x, x, x]]
    assert prefix_mask(0, 2).tolist() == [[x, o], [x, x]]


def slow_logits(captioner: Captioner, image, text, real):
    """The definition for one picture, position by position, over lists of what each may read."""
    config = captioner.config
    prefix = [row @ captioner.image_in.weight.T for row in image] + [row @ captioner.text_in.weight.T for row in text]
    hidden = {len(image) + place for place, known in enumerate(real) if not known}
    x = [*prefix, *captioner.queries]
    count, part = len(prefix), config.width // config.heads
    for block in captioner.blocks:
        parts = [block.qkv(block.attention_norm(row)).split(config.width) for row in x]
        after = []
        for row, (query, _, _) in enumerate(parts):
            reads = [
                column
                for column in range(len(x))
                if column not in hidden and (column < count or (row >= count and column <= row))
            ]
            heads = []
            for head in range(config.heads):
                span = slice(head * part, (head + 1) * part)
                weights = torch.stack([query[span] @ parts[c][1][span] / math.sqrt(part) for c in reads]).softmax(0)
                heads.append(sum(w * parts[c][2][span] for w, c in zip(weights, reads, strict=True)))
            middle = x[row] + block.out(torch.cat(heads))
            after.append(middle + block.down(F.gelu(block.up(block.mlp_norm(middle)))))
        x = after
    return torch.stack([captioner.norm(row).float() @ captioner.head.weight.float().T for row in x[count:]])


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 4),
    texts=st.integers(1, 4),
)
def test_logits_and_gradients_are_those_of_the_definition(seed, images, texts):
    captioner = shaken(SMALL, seed)
    image, text = states(2, seed, (images, 5), (texts, 7))
    random = torch.Generator().manual_seed(seed)
    real = torch.rand(2, texts, generator=random) < 0.6
    ours = captioner(image, text, real=real)
    slow = torch.stack([slow_logits(captioner, image[b], text[b], real[b]) for b in (0, 1)])
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, slow, rtol=1e-5, atol=1e-5)
    weights = torch.randn(ours.shape, generator=random)
    one, other = (
        torch.autograd.grad((logits * weights).sum(), list(captioner.parameters()), materialize_grads=True)
        for logits in (ours, slow)
    )
    for name, mine, reference in zip(dict(captioner.named_parameters()), one, other, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-4, msg=name)


def test_nothing_flows_where_the_mask_forbids():
    captioner = shaken(SMALL)
    image, text = (part.requires_grad_() for part in states(1, 3, (3, 5), (2, 7)))
    prefixes = []
    for block in captioner.blocks:
        block.register_forward_hook(lambda block, inputs, output: prefixes.append(output[:, :5]))
    logits = captioner(image, text)
    for place in range(4):
        asked, seen, read = torch.autograd.grad(
            logits[0, place].sum(), [captioner.queries, image, text], retain_graph=True
        )
        assert (asked.abs().sum(1) > 0).tolist() == [other <= place for other in range(4)]
        assert bool((seen != 0).any(-1).all())
        assert bool((read != 0).any(-1).all())
    with torch.no_grad():
        captioner.queries[2] *= -1
    after = captioner(image, text)
    assert torch.equal(after[0, :2], logits[0, :2])
    assert not torch.isclose(after[0, 2:], logits[0, 2:]).all(-1).any()
    assert len(prefixes) == 4
    for first, again in zip(prefixes[:2], prefixes[2:], strict=True):
        assert torch.equal(first, again)


def test_padding_of_web_captions_is_hidden():
    image, text = states(1, 5, (3, 5), (2, 7))
    padded = torch.cat([text, torch.full((1, 3, 7), 9.0, dtype=torch.float64)], dim=1)
    real = torch.tensor([[True, True, False, False, False]])
    hiding = shaken(SMALL)
    torch.testing.assert_close(hiding(image, padded, real=real), hiding(image, text))
    assert not torch.allclose(hiding(image, padded), hiding(image, text), atol=1e-2)


def test_the_head_computes_in_float32_under_autocast():
    captioner = Captioner(SMALL)
    image, text = (part.float() for part in states(2, 1, (3, 5), (2, 7)))
    with torch.autocast("cpu", torch.bfloat16):
        assert captioner.image_in(image).dtype == torch.bfloat16
        logits = captioner(image, text)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())
    torch.testing.assert_close(logits, captioner(image, text), rtol=0.1, atol=0.1)


def test_weights_come_from_the_seed_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = Captioner(SMALL, 1), Captioner(SMALL, 1), Captioner(SMALL, 2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.queries, again.queries)
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.queries, other.queries)
    queries = Captioner(replace(SMALL, queries=400)).queries
    assert queries.std().item() == pytest.approx(1, abs=0.05)
    assert first.head.bias is first.image_in.bias is first.text_in.bias is None


def slow_targets(row, start, end, queries):
    said = list(row)
    if start is not None:
        said.pop(0)
    out = []
    for token in said:
        out.append(token)
        if token == end:
            break
    out = out[:queries]
    return out + [IGNORED] * (queries - len(out))


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(2, 9), min_size=0, max_size=7), min_size=1, max_size=4),
    queries=st.integers(1, 9),
    starts=st.booleans(),
    padding=st.sampled_from([0, 1]),
)
def test_targets_are_the_caption_moved_by_one(rows, queries, starts, padding):
    start, end = (10 if starts else None), 1  # the end token may be the padding too, as in CLIP
    whole = [([10] if starts else []) + row + [end] for row in rows]
    longest = max(map(len, whole))
    tokens = torch.tensor([row + [padding] * (longest - len(row)) for row in whole])
    targets = caption_targets(tokens, start=start, end=end, queries=queries)
    assert targets.tolist() == [slow_targets(row, start, end, queries) for row in whole]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1), pad=st.sampled_from([IGNORED, 0]))
def test_the_loss_is_the_mean_over_real_tokens(seed, share, pad):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 4, 6, generator=random)
    targets = torch.randint(0, 6, (3, 4), generator=random)
    targets[torch.rand(3, 4, generator=random) < share] = pad
    terms = [-logits[b, i].log_softmax(0)[targets[b, i]] for b in range(3) for i in range(4) if targets[b, i] != pad]
    expected = sum(terms) / len(terms) if terms else torch.tensor(0.0)
    torch.testing.assert_close(captioning_loss(logits, targets, pad), expected)


@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2_fixed"])
def test_one_forward_of_each_tower_gives_embeddings_and_states(tmp_path, family):
    encoder = load_encoder(save_tiny(family, tmp_path / family), dtype="float32")
    model, runs = encoder.model, []
    for tower in (model.vision_model, model.text_model):
        tower.register_forward_hook(lambda *_: runs.append(1))
    pixels = encoder.collate(pictures(2))["pixel_values"]
    texts = encoder.tokenize(["a cat", "dog", "x y"])
    ids = texts["input_ids"]
    with torch.no_grad():
        found = prefix_states(model, pixels, ids)
        assert len(runs) == 2
        # CLIP with the mask it was trained with: hiding what comes after the end token changes nothing before it.
        inputs = texts if family == "clip" else {"input_ids": ids}
        torch.testing.assert_close(found.images, model.get_image_features(pixel_values=pixels).pooler_output)
        torch.testing.assert_close(found.texts, model.get_text_features(**inputs).pooler_output)
        torch.testing.assert_close(found.image_states, model.vision_model(pixels).last_hidden_state)
        torch.testing.assert_close(found.text_states, model.text_model(ids).last_hidden_state)
        torch.testing.assert_close(F.normalize(found.images, dim=1), encoder.embed_images(pictures(2)))
        torch.testing.assert_close(F.normalize(found.texts, dim=1), encoder.embed_texts(["a cat", "dog", "x y"]))
    config = CaptionerConfig.fitting(model, encoder.tokenizer, width=8, layers=1, heads=2, queries=6)
    captioner = Captioner(config)
    assert captioner(found.image_states, found.text_states[:2]).shape == (2, 6, len(encoder.tokenizer))
    ids = encoder.tokenizer("ab", padding=False)["input_ids"]
    start, end = special_ends(encoder.tokenizer)
    assert end == ids[-1]
    assert start == (None if family == "siglip2_fixed" else ids[0])
    assert len(write_captions(encoder, captioner, pictures(2))) == 2


def test_a_saved_captioner_comes_back_and_others_are_refused(tmp_path, overfit_world):
    encoder, _ = overfit_world
    captioner = Captioner(CaptionerConfig.fitting(encoder.model, encoder.tokenizer, width=8, layers=1, heads=2), 3)
    captioner.save(tmp_path / "captioner", {"steps": 7})
    loaded = Captioner.load(tmp_path / "captioner")
    assert loaded.config == captioner.config
    for name, tensor in captioner.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
    loaded.check_fits(encoder.model, encoder.tokenizer)

    with pytest.raises(ArtefactError, match="no boresight captioner"):
        Captioner.load(tmp_path / "nowhere")
    save_artefact(tmp_path / "sae", "sae", {"a": torch.zeros(1)}, {})
    with pytest.raises(ArtefactError, match="of kind 'sae', not 'captioner'"):
        Captioner.load(tmp_path / "sae")
    save_artefact(tmp_path / "lame", "captioner", {"a": torch.zeros(1)}, {"config": {"image_width": 4}})
    with pytest.raises(ArtefactError, match="train it again"):
        Captioner.load(tmp_path / "lame")
    for change, told in (
        ({"image_width": 99}, "image_width 99"),
        ({"text_width": 98}, "text_width 98"),
        ({"tokenizer": "0123"}, "tokenizer 0123"),
        ({"vocabulary": 5, "tokenizer": ""}, "vocabulary 5"),
    ):
        with pytest.raises(ArtefactError, match=told):
            Captioner(replace(captioner.config, **change)).check_fits(encoder.model, encoder.tokenizer)
    vision_text = load_encoder(save_tiny("vision_text", tmp_path / "vision_text"), dtype="float32")
    with pytest.raises(InputError, match="CLIP and SigLIP"):
        captioner.check_fits(vision_text.model, vision_text.tokenizer)


def test_signs_that_the_tokenizer_set_apart_are_joined(overfit_world):
    encoder, _ = overfit_world
    for caption in (
        "a plain picture, all of it red.",
        "it's a blue-green wall (not gray); isn't it?!",
        "2024 and 3.5, 50% off: red [or] blue",
        "black & white \U0001f600",
    ):
        assert _text(encoder.tokenizer, encoder.tokenizer(caption)["input_ids"]) == caption


def test_misuse_gets_a_sentence():
    for wrong, told in (({"heads": 5}, "no multiple"), ({"queries": 0}, "queries is 0")):
        with pytest.raises(InputError, match=told):
            replace(SMALL, **wrong)
    image, text = states(2, 0, (3, 5), (2, 7))
    asked = Captioner(SMALL)
    with pytest.raises(InputError, match="Image states"):
        asked(text, text)
    with pytest.raises(InputError, match="Text states"):
        asked(image, text[:1])


def fit(captioner: Captioner, encoder: TransformersEncoder, images, steps: int) -> None:
    """Learn the captions of eight pictures by heart, behind an empty web caption."""
    start, end = special_ends(encoder.tokenizer)
    with torch.inference_mode():
        found = prefix_states(
            encoder.model, encoder.collate(images)["pixel_values"], encoder.tokenize([""] * len(images))["input_ids"]
        )
    image, text = found.image_states.clone(), found.text_states.clone()
    tokens = encoder.tokenize(CAPTIONS)["input_ids"]
    targets = caption_targets(tokens, start=start, end=end, queries=captioner.config.queries)
    optimiser = torch.optim.AdamW(captioner.parameters(), lr=3e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = captioning_loss(captioner(image, text), targets)
        loss.backward()
        optimiser.step()


def test_eight_pictures_learnt_by_heart_are_captioned_right(overfit_world):
    encoder, images = overfit_world
    config = CaptionerConfig.fitting(encoder.model, encoder.tokenizer, width=32, layers=2, heads=4, queries=12)
    captioner = Captioner(config)
    fit(captioner, encoder, images, steps=150)
    captioner.eval()
    assert write_captions(encoder, captioner, images, batch_size=3) == CAPTIONS
    assert write_captions(encoder, captioner, images[:2], ["", ""]) == CAPTIONS[:2]
    assert write_captions(encoder, captioner, images[:1], max_tokens=2) == ["a plain"]
    for wrong, told in (
        ({"batch_size": 0}, "batch_size is 0"),
        ({"max_tokens": 13}, "1 to 12 tokens"),
        ({"web_captions": ["one"]}, "1 web captions for 8 images"),
    ):
        with pytest.raises(InputError, match=told):
            write_captions(encoder, captioner, images, **wrong)
