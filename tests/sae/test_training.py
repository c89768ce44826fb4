"""Fitting, encoding, keeping and refusing, on small synthetic embeddings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from boresight.embeddings import Embeddings
from boresight.errors import ArtefactError, InputError
from boresight.sae import SparseAutoencoder, measure_sae, training
from boresight.sae.config import Plan, SaeConfig, SaeFit
from boresight.sae.training import geometric_median

ARCHITECTURES = ["topk", "batchtopk", "jumprelu", "matryoshka"]


def sparse_mixtures(rows: int, seed: int = 0, width: int = 16, atoms: int = 24, active: int = 3) -> Tensor:
    """Rows that are positive sums of `active` fixed directions around a common offset."""
    directions = torch.nn.functional.normalize(
        torch.randn(atoms, width, generator=torch.Generator().manual_seed(7)), dim=1
    )
    generator = torch.Generator().manual_seed(seed)
    picks = torch.rand(rows, atoms, generator=generator).topk(active, dim=1).indices
    amounts = 0.5 + torch.rand(rows, active, generator=generator)
    return 3 * directions[0] + (amounts[:, :, None] * directions[picks]).sum(1)


@pytest.fixture(scope="module")
def fitted() -> dict[str, SparseAutoencoder]:
    data = 5 * sparse_mixtures(2000)
    return {
        name: SparseAutoencoder.fit(
            data, n_latents=48, k=4, architecture=name, steps=400, batch_size=256, learning_rate=3e-3
        )
        for name in ARCHITECTURES
    }


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_learns_unseen_data_at_its_own_scale(fitted: dict[str, SparseAutoencoder], name: str) -> None:
    unseen = 5 * sparse_mixtures(500, seed=1)
    measures = measure_sae(fitted[name], unseen)
    assert measures.explained_variance > 0.8
    assert 3 < measures.l0 < 5.5
    assert measures.dead_share < 0.3
    assert measures.cosine > 0.95
    torch.testing.assert_close(fitted[name].directions.norm(dim=1), torch.ones(48))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_encode_is_the_formula(fitted: dict[str, SparseAutoencoder], name: str) -> None:
    sae, x = fitted[name], 5 * sparse_mixtures(50, seed=2)
    assert sae.encoder_bias.abs().max() > 0
    assert sae.bias.abs().max() > 0
    pre = (x - sae.bias) @ sae.encoder_weight.T + sae.encoder_bias
    if sae.config.thresholded:
        assert (sae.threshold > 0).all()
        expected = torch.where(pre > sae.threshold, pre, 0.0)
        kept = expected.topk(sae.config.max_active, dim=1)
        expected = torch.zeros_like(pre).scatter(1, kept.indices, kept.values)
    else:
        expected = torch.zeros_like(pre).scatter(1, pre.topk(4, dim=1).indices, pre.topk(4, dim=1).values.relu())
    for block in (None, 7, 50):
        codes = sae.encode(x, block=block)
        torch.testing.assert_close(codes.dense(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae.decode(codes), expected @ sae.directions + sae.bias, rtol=1e-4, atol=1e-4)
    assert sae.encode(x[:0]).indices.shape[0] == 0
    assert sae.decode(sae.encode(x[:0])).shape == (0, 16)


def test_max_active_keeps_the_largest() -> None:
    sae = SparseAutoencoder.fit(sparse_mixtures(300), n_latents=32, k=2, architecture="batchtopk", steps=40)
    with torch.no_grad():
        sae.threshold.fill_(1e-3)
        sae.encoder_bias.add_(5)  # so that more latents than are kept exceed it
    codes = sae.encode(sparse_mixtures(100, seed=3))
    assert codes.k == 8
    x = sparse_mixtures(100, seed=3)
    pre = (x - sae.bias) @ sae.encoder_weight.T + sae.encoder_bias
    torch.testing.assert_close(codes.values, pre.topk(8, dim=1).values, rtol=1e-4, atol=1e-4)


def test_reads_half_precision_numpy_and_maps_alike(tmp_path: Path) -> None:
    half = sparse_mixtures(600).half()
    stored = np.lib.format.open_memmap(tmp_path / "rows.npy", mode="w+", dtype=np.float16, shape=tuple(half.shape))
    stored[:] = half.numpy()
    stored.flush()
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    options = {"n_latents": 32, "k": 3, "steps": 20}
    prints = {
        SparseAutoencoder.fit(source, **options).fingerprint
        for source in (half, half.float(), mapped, np.asarray(mapped), half.double().numpy())
    }
    assert len(prints) == 1
    sae = SparseAutoencoder.fit(half, **options)
    assert torch.equal(sae.encode(mapped).values, sae.encode(half.float()).values)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_same_seed_same_bits(name: str) -> None:
    data = sparse_mixtures(400)
    options = {"n_latents": 32, "k": 3, "architecture": name, "steps": 30}
    first = SparseAutoencoder.fit(data, seed=5, **options)
    assert first.fingerprint == SparseAutoencoder.fit(data, seed=5, **options).fingerprint
    assert first.fingerprint != SparseAutoencoder.fit(data, seed=6, **options).fingerprint


def test_folding_the_scale_leaves_the_code_alone() -> None:
    data = sparse_mixtures(400)
    for name in ARCHITECTURES:
        options = {"n_latents": 32, "k": 3, "architecture": name, "steps": 30}
        small, large = (SparseAutoencoder.fit(factor * data, **options) for factor in (1, 64))
        codes, others = small.encode(data), large.encode(64 * data)
        torch.testing.assert_close(others.dense(), 64 * codes.dense(), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_killed_fit_continues_to_the_same_weights(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = sparse_mixtures(500)
    options = {"n_latents": 32, "k": 3, "architecture": name, "steps": 40, "dead_after": 200, "aux_k": 4}
    whole = SparseAutoencoder.fit(data, **options)
    remember = training._remember
    calls = []

    def killed_at_27(*arguments: object) -> None:
        remember(*arguments)  # type: ignore[arg-type]
        calls.append(1)
        if len(calls) == 27:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "_remember", killed_at_27)
    with pytest.raises(KeyboardInterrupt):
        SparseAutoencoder.fit(data, checkpoint=tmp_path / "state", checkpoint_every=10, **options)
    assert torch.get_float32_matmul_precision() == "highest"
    before = len(calls)
    resumed = SparseAutoencoder.fit(data, checkpoint=tmp_path / "state", checkpoint_every=10, **options)
    assert len(calls) - before == 20
    assert resumed.fingerprint == whole.fingerprint
    with pytest.raises(InputError, match=r"checkpoint in .* is of a fit with other data"):
        SparseAutoencoder.fit(data + 1, checkpoint=tmp_path / "state", **options)


def test_dead_latents_come_back_with_the_auxiliary_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    data = sparse_mixtures(2000)
    start = training.start_state

    def start_with_dead_half(*arguments: object) -> object:
        state = start(*arguments)  # type: ignore[arg-type]
        with torch.no_grad():
            # Half of the dictionary begins weak: positive at times, and never among the k largest.
            state.weights.encoder_weight[24:] *= 0.02
        return state

    monkeypatch.setattr(training, "start_state", start_with_dead_half)
    dead = {}
    for coefficient in (0.0, 1 / 32):
        sae = SparseAutoencoder.fit(
            data, n_latents=48, k=3, steps=300, batch_size=256, dead_after=500, aux_coefficient=coefficient
        )
        dead[coefficient] = measure_sae(sae, data).dead_share
    assert dead[0.0] > 0.3
    assert dead[1 / 32] < dead[0.0] / 2


@pytest.mark.parametrize("rows", [2, 3, 17, 65])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_few_rows_are_enough(rows: int, name: str) -> None:
    sae = SparseAutoencoder.fit(sparse_mixtures(rows), n_latents=20, k=4, architecture=name, steps=5, batch_size=16)
    assert len(sae.encode(sparse_mixtures(rows))) == rows


def test_every_row_is_read_once_an_epoch() -> None:
    for count, size in ((10, 4), (7, 7), (9, 100), (4097, 4096)):
        batches = -(-count // size)
        for epoch in range(2):
            parts = [training.batch_rows(count, size, 0, epoch * batches + step) for step in range(batches)]
            assert torch.equal(torch.cat(parts).sort().values, torch.arange(count))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_geometric_median_is_robust_and_minimal() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(201, 4, generator=generator) + 3
    points[:40] += 1000
    median = geometric_median(points)
    assert (median - 3).norm() < 2
    assert (points.mean(0) - 3).norm() > 100

    def total(at: Tensor) -> float:
        return float((points.double() - at.double()).norm(dim=1).sum())

    for _ in range(30):
        assert total(median) <= total(median + 0.05 * torch.randn(4, generator=generator)) + 1e-3
    # The mean of these is one of them: the iteration must leave it.
    line = torch.tensor([[0.0], [1.0], [2.0], [3.0], [-6.0]])
    assert abs(float(geometric_median(line)) - 1.0) < 1e-2


def test_the_dictionary_follows_the_data():
    assert [SaeFit().latents_for(rows) for rows in (2, 400, 815, 3000, 10**6)] == [128, 128, 256, 1024, 4096]
    assert SaeFit(n_latents=7).latents_for(3000) == 7
    rows = sparse_mixtures(60)
    assert SparseAutoencoder.fit(rows, k=4, steps=2).n_latents == 128
    with pytest.warns(UserWarning, match=r"300 latents for 60 images.*Left out, n_latents is 128"):
        assert SparseAutoencoder.fit(rows, n_latents=300, k=4, steps=2).n_latents == 300


def test_options_follow_the_data() -> None:
    fit = SaeFit(n_latents=64, k=4)
    assert [Plan.of(fit, rows).batch_size for rows in (30, 500, 6000, 10**6)] == [30, 64, 512, 4096]
    assert Plan.of(fit, 500).steps == 2000
    assert Plan.of(fit, 10**8).steps == -(-(10**8) // 4096)
    plan = Plan.of(replace(fit, steps=1000, learning_rate=1.0), 1000)
    rates = [plan.rate(step) for step in range(1000)]
    assert max(rates) == 1.0
    assert rates[0] == pytest.approx(1 / 50)
    assert rates[500] == 1.0
    assert rates[-1] == pytest.approx(1 / 300)
    assert SaeConfig(width=8, n_latents=64, k=4, architecture="matryoshka").prefixes == (8, 16, 32, 64)


DATA = sparse_mixtures(40)


def with_value(row: int, value: float) -> Tensor:
    rows = DATA.clone()
    rows[row] = value
    return rows


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"images": with_value(31, float("nan"))}, "Row 31 of the embeddings holds NaN"),
        ({"images": with_value(7, 0.0)}, "Row 7 of the embeddings is all zero"),
        ({"images": DATA[:1]}, "There are 1 rows and at least 2 are needed"),
        ({"images": DATA[:, :0]}, r"shape \(40, 0\)"),
        ({"images": DATA[0]}, r"shape \(16,\); a matrix"),
        ({"images": DATA.long()}, "dtype torch.int64; floating-point"),
        ({"images": [[1.0, 2.0]]}, "came as list"),
        ({"images": DATA[:1].expand(9, -1)}, "All embeddings are the same"),
        ({"k": 33}, "k is 33; choose between 1 and n_latents, which is 32"),
        ({"k": 0}, "k is 0"),
        ({"n_latents": 0}, "n_latents is 0"),
        ({"architecture": "relu"}, "architecture='relu' is unknown; choose one of topk, batchtopk"),
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; choose more than 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"aux_coefficient": -1.0}, "aux_coefficient is -1.0"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0"),
        ({"latents": 8}, "There is no option 'latents'; choose from n_latents, k, architecture, captions, seed, steps"),
        ({"device": "cuda:99"}, "Device 'cuda:99' cannot be used"),
    ],
)
def test_refuses_in_one_sentence(arguments: dict, sentence: str) -> None:
    arguments = {"images": DATA, "n_latents": 32, "k": 3, "steps": 2, **arguments}
    with pytest.raises(InputError, match=sentence) as caught:
        SparseAutoencoder.fit(**arguments)
    assert "\n" not in str(caught.value)


def test_finds_a_bad_row_far_down(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = sparse_mixtures(70_000)
    rows[69_000, 3] = float("inf")
    with pytest.raises(InputError, match="Row 69000 of the embeddings holds NaN or infinity"):
        SparseAutoencoder.fit(rows, n_latents=32, k=3, steps=1)


def test_divergence_is_said() -> None:
    with pytest.raises(InputError, match="smaller learning_rate"):
        SparseAutoencoder.fit(DATA, n_latents=32, k=3, steps=30, learning_rate=1e38)


def test_encode_and_decode_refuse_what_does_not_fit(fitted: dict[str, SparseAutoencoder]) -> None:
    sae = fitted["topk"]
    with pytest.raises(InputError, match="9 wide and the autoencoder was fitted on width 16"):
        sae.encode(torch.randn(3, 9))
    with pytest.raises(InputError, match="Row 2 of the embeddings holds NaN"):
        sae.encode(with_value(2, float("nan")), block=2)
    other = SparseAutoencoder.fit(DATA, n_latents=32, k=3, steps=2)
    with pytest.raises(InputError, match="codes are of 32 latents and the autoencoder has 48"):
        sae.decode(other.encode(DATA))


def embeddings_of(encoder: str, **manifest: str) -> Embeddings:
    made = Embeddings.from_arrays(DATA, DATA[:5], range(5), encoder=encoder)
    made.manifest.update(manifest)
    return made


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_save_and_load(fitted: dict[str, SparseAutoencoder], name: str, tmp_path: Path) -> None:
    sae = fitted[name]
    sae.save(tmp_path / "sae")
    loaded = SparseAutoencoder.load(tmp_path / "sae")
    assert loaded.config == sae.config
    assert loaded.fingerprint == sae.fingerprint
    assert loaded.manifest["measures"] == sae.manifest["measures"]
    assert loaded.manifest["options"]["seed"] == 0
    x = 5 * sparse_mixtures(30, seed=9)
    codes, again = sae.encode(x), loaded.encode(x)
    assert torch.equal(codes.indices, again.indices)
    assert torch.equal(codes.values, again.values)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_load_refuses_other_folders(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="is no boresight sae"):
        SparseAutoencoder.load(tmp_path)


def test_refuses_embeddings_of_another_encoder(tmp_path: Path) -> None:
    options = {"n_latents": 32, "k": 3, "steps": 2}
    sae = SparseAutoencoder.fit(embeddings_of("clip-a", encoder_fingerprint="aa"), **options)
    assert sae.manifest["encoder"] == "clip-a"
    sae.save(tmp_path / "sae")
    sae = SparseAutoencoder.load(tmp_path / "sae")
    sae.require_same_encoder(embeddings_of("clip-a", encoder_fingerprint="aa"))
    sae.require_same_encoder(embeddings_of("clip-a moved", encoder_fingerprint="aa"))
    sae.require_same_encoder(embeddings_of(""))
    with pytest.raises(ArtefactError, match=r"fitted on embeddings of 'clip-a' .* these are of 'clip-b'"):
        sae.require_same_encoder(embeddings_of("clip-b", encoder_fingerprint="bb"))
    with pytest.raises(ArtefactError, match="these are of 'clip-b'"):
        sae.require_same_encoder(embeddings_of("clip-b"))
    with pytest.raises(ArtefactError, match="width 16 and these embeddings are 3 wide"):
        sae.require_same_encoder(Embeddings.from_arrays(DATA[:, :3], DATA[:5, :3], range(5)))
    SparseAutoencoder.fit(DATA, **options).require_same_encoder(embeddings_of("clip-b"))
