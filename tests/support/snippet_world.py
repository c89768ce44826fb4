"""A folder in which the examples of the guide can run: small pictures and files under every name that they use."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import boresight as bs
from boresight.benchmarks import BenchmarkRun
from boresight.benchmarks.registry import BENCHMARKS
from boresight.data import Collection
from boresight.editing import CaptionEditor, presence
from boresight.editing.config import EditorFit
from boresight.evaluation import compare
from boresight.models import default_model_path
from boresight.sae import config as sae_config
from boresight.sae import name_latents
from published_files import write

CHANGES = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
PHOTOS = 70


def fewer_steps(patch: pytest.MonkeyPatch) -> None:
    """Fits that take a moment, and so learn little."""
    patch.setattr(EditorFit, "steps_for", lambda self, images: min(self.steps or 3, 3))
    patch.setattr(sae_config, "default_steps", lambda rows, batch_size: 5)
    patch.setattr(presence, "STEPS", 3)


def put_world(folder: Path) -> None:
    """Fill `folder`, which is where the examples are run."""
    scenes = bs.data.make_scenes(PHOTOS, size=64)
    rows, things = [], [json.loads(cell)["objects"][0] for cell in scenes.dataset["attributes"]]
    (folder / "photos").mkdir()
    (folder / "new").mkdir()
    for row, (texts, thing) in enumerate(zip(scenes.captions, things, strict=True)):
        scenes.image(row).save(folder / "photos" / f"{row}.jpg")
        labels = {"class": thing["shape"], "colour": thing["colour"]}
        rows.append({"file_name": f"{row}.jpg", "captions": texts[:2], "long": texts[-1], **labels})
    (folder / "photos" / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row, name in enumerate(("photo.jpg", "another.jpg", "a.jpg", "b.jpg", "17.jpg", "new/one.jpg")):
        scenes.image(row).save(folder / name)
    (folder / "new" / "captions.jsonl").write_text(json.dumps({"file_name": "one.jpg", "captions": ["a ring"]}) + "\n")
    (folder / "pairs.csv").write_text("image,caption\na.jpg,a red ring\nb.jpg,a star\n")
    for hub in ("openai/clip-vit-base-patch32", "models/my-clip"):
        shutil.copytree(default_model_path(), folder / hub)
    _put_classes(folder, scenes)
    _put_benchmarks(folder, scenes)


def _put_classes(folder: Path, scenes: Collection) -> None:
    for row, name in enumerate(("pets/test/cat", "pets/test/dog", "imagenet/val/n01440764", "imagenet/val/n01443537")):
        (folder / name).mkdir(parents=True)
        scenes.image(row).save(folder / name / "0.jpg")
    (folder / "names.txt").write_text("tench\ngoldfish\n")
    (folder / "templates.txt").write_text("a photo of a {}\n")


def _put_benchmarks(folder: Path, scenes: Collection) -> None:
    names = [f"COCO_val2014_{number:012}.jpg" for number in range(12)]
    put = [folder / "coco/val2014" / name for name in names]
    put += [folder / "coco/images/val2014" / name for name in names]
    put += [folder / "coco/val2017/000000000139.jpg", folder / "docci_images/test_00000.jpg"]
    put += [folder / "aro/images/7.jpg", *(folder / f"winoground/images/ex_0_img_{side}.png" for side in (0, 1))]
    put += [folder / "photos42.jpg"]
    for row, file in enumerate(put):
        file.parent.mkdir(parents=True, exist_ok=True)
        scenes.image(row).save(file)
    captioned = list(zip(names, ([texts[0]] * 5 for texts in scenes.captions), strict=False))
    write(
        folder / "coco/coco_karpathy_test.json",
        [{"image": f"val2014/{name}", "caption": texts} for name, texts in captioned],
    )
    altered = [{"image": f"val2014/{name}", "caption": [*texts, *["a bomb"] * 5]} for name, texts in captioned]
    write(folder / "rococo/danger.json", altered)
    docci = {"split": "test", "example_id": "test_00000", "image_file": "test_00000.jpg", "description": "A ring."}
    write(folder / "docci/docci_descriptions.jsonlines", json.dumps(docci) + "\n")
    (folder / "val2017").mkdir()
    scenes.image(0).save(folder / "val2017/000000000139.jpg")
    image, annotation = {"id": 139, "file_name": "000000000139.jpg"}, {"id": 1, "image_id": 139, "caption": "a ring"}
    write(folder / "annotations/captions_val2017.json", {"images": [image], "annotations": [annotation]})
    item = {"filename": "000000000139.jpg", "caption": "a red ring", "negative_caption": "a blue ring"}
    for change in CHANGES:
        write(folder / f"sugar-crepe/{change}.json", {"0": item})
        write(folder / f"scpp/{change}.json", [{"id": 0, **item, "caption2": "one red ring"}])
    box = {f"bbox_{end}": size for end, size in zip("xywh", (0, 0, 20, 20), strict=True)}
    relation = {
        "image_path": "7.jpg",
        **box,
        "true_caption": "a on b",
        "false_caption": "b on a",
        "relation_name": "on",
    }
    write(folder / "aro/visual_genome_relation.json", [relation])
    example = {"id": 0, "image_0": "ex_0_img_0", "image_1": "ex_0_img_1", "caption_0": "a b", "caption_1": "b a"}
    write(folder / "winoground/examples.jsonl", json.dumps(example) + "\n")


def names_given(folder: Path) -> dict[str, Any]:
    """What the pages of the guide take for granted, by name: they say what each is in words."""
    encoder = bs.load_encoder(str(default_model_path()), dtype="float32")
    collection = bs.train_validation_test(bs.load_collection(folder / "photos"))
    embeddings = bs.embed(encoder, collection, folder / "photos.embeddings")
    sae = bs.SparseAutoencoder.fit(embeddings.train, n_latents=64, k=8, steps=5)
    editor = CaptionEditor.fit(sae, embeddings.train, embeddings.validation)
    names = name_latents(sae, embeddings=embeddings.train)
    for stem in ("photos", "runs/photos"):
        embeddings.save(folder / f"{stem}.embeddings")
        editor.save(folder / f"{stem}.editor")
        sae.save(folder / f"{stem}.sae")
    for of_demo in ("editor", "runs/demo/seed-0/edited"):
        editor.save(folder / of_demo)
    for index in ("runs/photos.index", "runs/demo/index"):
        bs.SearchIndex.create(folder / index, embeddings, editor=editor)
    splits = ["test-style" if split == "test" else split for split in embeddings.splits]
    replace(embeddings, splits=splits).save(folder / "runs/demo/embeddings")
    for name, benchmark, edited in (
        ("coco", "coco-karpathy-5k", ""),
        ("coco-edited", "coco-karpathy-5k", editor.fingerprint),
        ("crepe", "sugarcrepe", ""),
    ):
        run = BenchmarkRun(
            benchmark=benchmark,
            title=BENCHMARKS[benchmark].title,
            model=encoder.name,
            encoder_fingerprint=encoder.fingerprint,
            editor=edited,
            scores={"plain": {"macro accuracy" if name == "crepe" else "T2I R@1": 50.0}},
        )
        run.save(folder / "runs" / name)
    test = embeddings.test
    comparison = compare(embeddings.train, embeddings.validation, {"photos": test}, seeds=(0,))
    pixels = torch.stack([encoder.preprocess(collection.image(0))])
    return {
        "bs": bs,
        "torch": torch,
        "encoder": encoder,
        "model": encoder.model,
        "pixel_values": pixels,
        "input_ids": encoder.tokenize(["a red ring"])["input_ids"],
        "collection": collection,
        "photos": bs.load_collection(folder / "photos"),
        "embeddings": embeddings,
        "train": embeddings.train,
        "validation": embeddings.validation,
        "test": test,
        "comparison": comparison,
        "sae": sae,
        "editor": editor,
        "names": names,
        "images": test.images[:5].float(),
        "others": test.images[5:8].float(),
        "texts": test.texts[:5].float(),
        "owners": range(5),
        "image": test.images[0].float(),
        "text": test.texts[0].float(),
        "picture": collection.image(0),
        "another": collection.image(1),
        "masks": torch.ones(2, 64, 64, dtype=torch.bool),
        "tensors": {
            "W_enc": sae.encoder_weight.T,
            "b_enc": sae.encoder_bias,
            "W_dec": sae.directions,
            "b_dec": sae.bias,
        },
    }
