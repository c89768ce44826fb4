"""Retrieval benchmarks of the field: galleries, examples, and what is said when files or pictures are not whole."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from boresight.benchmarks.job import BenchmarkJob
from boresight.benchmarks.registry import RETRIEVAL, open_published, run_benchmark
from boresight.benchmarks.retrieval import retrieval_examples
from boresight.data.worlds.scenes import make_scenes
from boresight.editing.scorer import ways
from boresight.embeddings import Embeddings
from boresight.errors import InputError
from boresight.evaluation import evaluate_retrieval
from collection_files import put_pictures
from published_files import COCO, put


@pytest.fixture(autouse=True)
def spoken(monkeypatch):
    monkeypatch.delenv("BORESIGHT_QUIET", raising=False)


def test_folds_are_runs_of_equal_length() -> None:
    folds = RETRIEVAL["coco-karpathy-1k"].galleries(5000)
    assert [(fold.start, fold.stop) for fold in folds] == [(start, start + 1000) for start in range(0, 5000, 1000)]
    assert RETRIEVAL["coco-karpathy-5k"].galleries(5000) == [range(5000)]
    ragged = RETRIEVAL["coco-karpathy-1k"].galleries(13)
    assert [row for fold in ragged for row in fold] == list(range(13))
    assert {len(fold) for fold in ragged} == {2, 3}


def test_missing_pictures_are_counted_and_named(tmp_path: Path, capsys) -> None:
    put(
        tmp_path / "coco_karpathy_test.json",
        json.dumps([{"image": f"val2014/{n}", "caption": c} for n, c in COCO.items()]),
    )
    put_pictures(tmp_path / "val2014", list(COCO)[1:])
    collection = open_published("coco-karpathy-5k", tmp_path)
    assert len(collection) == 2
    assert [(problem.what, problem.where) for problem in collection.problems] == [("missing file", next(iter(COCO)))]
    said = capsys.readouterr().err
    assert "skipped 1 row: 1 missing file (COCO_val2014_000000391895.jpg); figures over fewer images are not" in said

    for file in (tmp_path / "val2014").iterdir():
        file.unlink()
    first = tmp_path / "val2014" / "COCO_val2014_000000391895.jpg"
    with pytest.raises(InputError, match="None of the 3 pictures of COCO, Karpathy test 5k is there") as caught:
        open_published("coco-karpathy-5k", tmp_path)
    assert str(first) in str(caught.value)
    with pytest.raises(InputError, match=r"The image folder .*nowhere does not exist"):
        open_published("coco-karpathy-5k", tmp_path, images=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("benchmark", "name", "text", "why"),
    [
        ("coco-karpathy-5k", "coco_karpathy_test.json", '[{"image": "a', "cannot be read as json"),
        ("coco-karpathy-5k", "coco_karpathy_test.json", "3", "holds a int at its top"),
        ("coco-karpathy-5k", "coco_karpathy_test.json", '[{"caption": []}]', "entry 0 of .* lacks a text 'image'"),
        ("coco-karpathy-5k", "dataset_coco.json", '{"images": []}', "its file holds no test images"),
        ("coco-val2017", "captions_val2017.json", '{"images": []}', "is no COCO captions file"),
        ("docci", "docci_descriptions.jsonlines", '{"split": "test"}\n', "line 1 of .* lacks a text 'example_id'"),
        ("docci", "docci_descriptions.jsonlines", '\n{"split": \n', "line 2 of .* is no json"),
        ("docci", "docci_descriptions.jsonlines", "[1]\n", "line 1 of .* is no json object"),
        ("docci-sentences", "test_annotations.json", "[]", "holds a list at its top"),
        ("docci-sentences", "test_annotations.json", "{}", "lacks the list 'annotations'"),
        ("docci-sentences", "test_annotations.json", '{"annotations": [{}]}', "annotation 0 of .* a text 'image'"),
        ("iiw-400", "IIW-400/data.jsonl", '{"image/key": "a", "IIW-P5B": "x"}\n', "lacks a text 'IIW'"),
        ("sharegpt4v-1k", "share4v_sam_10k.json", '{"a": 1}', "holds no list of entries"),
        ("sharegpt4v-1k", "share4v_sam_10k.json", '[{"image": "a.jpg", "conv', "cannot be read as json"),
        ("sharegpt4v-1k", "share4v_sam_10k.json", '[{"image": "a.jpg"} x]', "lacks 'conversations'"),
    ],
)  # fmt: skip
def test_torn_files_are_named(benchmark: str, name: str, text: str, why: str, tmp_path: Path) -> None:
    put(tmp_path / name, text)
    with pytest.raises(InputError, match=why):
        open_published(benchmark, tmp_path)


def urban(scenes, folder: Path) -> Path:
    for part in ("image", "caption"):
        (folder / part).mkdir(parents=True)
    for row in range(len(scenes)):
        scenes.image(row).save(folder / "image" / f"{row}.jpg")
        (folder / "caption" / f"{row}.txt").write_text(scenes.captions[row][2])
    return folder


def test_what_could_not_be_read_is_recorded(encoder, scenes, tmp_path: Path) -> None:
    folder = urban(scenes, tmp_path)
    (folder / "image" / "3.jpg").write_bytes(b"no picture")
    (folder / "image" / "4.jpg").unlink()
    job = BenchmarkJob(encoder=encoder, data=folder, out=tmp_path / "run", workers=0)
    facts = run_benchmark("urban1k", job).facts
    assert facts["images"] == str(len(scenes) - 2)
    assert facts["images, not as published"] == f"{len(scenes) - 2} of 1,000"
    assert facts["left out"] == "1 x missing file, 1 x unreadable picture"


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
