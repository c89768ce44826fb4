"""The golden record: what every command says and draws, to be the same before and after the code has moved.

    python profiling/golden.py make OUT.json [--work DIR]
    python profiling/golden.py compare A.json B.json [--rtol 1e-5] [--ignore PATTERN]...

`make` runs the lines of golden/commands.json and the names that `import boresight` gives, and nothing below them, on
pictures that it draws, also in the layouts of published benchmarks, and on the built-in emoji and scenes. It records the
boresight that Python finds first: choose by PYTHONPATH. Sections: `commands` (printed lines), `pages` (words of the HTML,
a line a row of a table), `tables` (csv, captions), `collections`, `python`, `explain`, and `files` (json and tensors).
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import fnmatch
import io
import json
import math
import os
import random
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

Record = dict[str, dict[str, Any]]
SETTINGS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}
SECTIONS = ("commands", "pages", "tables", "collections", "python", "explain", "files")
COMMANDS = Path(__file__).resolve().parent / "golden" / "commands.json"
COLOURS = {"red": (214, 40, 40), "green": (50, 150, 60), "blue": (40, 80, 200), "purple": (125, 60, 170)}
GROUNDS = {"white": (250, 250, 250), "cream": (250, 236, 205), "grey": (190, 190, 195)}
SHAPES = {
    "star": [(0, -1), (0.3, -0.3), (1, 0), (0.3, 0.3), (0, 1), (-0.3, 0.3), (-1, 0), (-0.3, -0.3)],
    "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "triangle": [(0, -1), (1, 1), (-1, 1)],
    "diamond": [(0, -1), (0.7, 0), (0, 1), (-0.7, 0)],
}
SIZES = {"small": 8, "large": 15}
PLACES = ("top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right")
VOLATILE = {
    r"(?<![\w.])[0-9a-f]{16,64}\b": "<hash>",
    r"\([0-9a-f]{6}\)": "(<hash>)",
    r"\bdata [0-9a-f]{8}\b": "data <hash>",
    r"[\d.,]+ images/s": "<n> images/s",
    r"\b[\d,]+ s(?= of fitting|; figures)": "<n> s",
    r"\b(boresight|torch|version):? \d+\.\d+[\w.+]*": r"\1 <version>",
}
BREAKS = frozenset(["h1", "h2", "h3", "h4", "p", "tr", "ol", "dt", "figure", "figcaption", "blockquote", "caption"])
MISSING = "<not there>"


def scene(row: int) -> tuple[Image.Image, dict[str, Any]]:
    """A picture of one to three things on a ground, and its truth."""
    numbers = random.Random(f"scene {row}")
    ground = numbers.choice(list(GROUNDS))
    picture, things = Image.new("RGB", (96, 96), GROUNDS[ground]), []
    for cell in numbers.sample(range(9), numbers.randint(1, 3)):
        size, colour, shape = (numbers.choice(list(words)) for words in (SIZES, COLOURS, SHAPES))
        x, y, r = 16 + 32 * (cell % 3), 16 + 32 * (cell // 3), SIZES[size]
        ImageDraw.Draw(picture).polygon([(x + r * a, y + r * b) for a, b in SHAPES[shape]], fill=COLOURS[colour])
        things.append({"shape": shape, "size": size, "colour": colour, "place": PLACES[cell]})
    return picture, {"background": ground, "objects": things}


def captions(row: int) -> list[str]:
    """Five captions of `scene(row)`: the first three of growing richness; then one longer than the model reads."""
    truth = scene(row)[1]
    things = truth["objects"]
    short = f"a {things[0]['colour']} {things[0]['shape']}"
    medium = " and ".join(f"a {one['size']} {one['colour']} {one['shape']}" for one in things)
    long = " and ".join(f"a {one['size']} {one['colour']} {one['shape']} at the {one['place']}" for one in things)
    ground = f"on a {truth['background']} background"
    drawn = "It was drawn by a child, who had a ruler and a pencil, on a quiet day. Nothing else is there, no frame, "
    told = f"{drawn} no word, no shadow and no person, but for {medium}. We see {long}; and all of it stands {ground}."
    return [short, medium, f"{long}, {ground}", f"a picture of {short}.", f"There is {medium} {ground}.", told * 2]


def put(file: str, content: Any) -> None:
    """A text file: text as it is, else json, in lines where the name says so."""
    if not isinstance(content, str):
        lines = file.endswith(("jsonl", "jsonlines"))
        content = "".join(json.dumps(row) + "\n" for row in content) if lines else json.dumps(content)
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(content, encoding="utf-8")


def draw(names: Sequence[str]) -> None:
    """The pictures of the first rows, in these files."""
    for row, file in enumerate(map(Path, names)):
        file.parent.mkdir(parents=True, exist_ok=True)
        scene(row)[0].save(file, quality=95)


# fmt: off
def own_data() -> None:
    """`world` with splits, labels and long captions; pictures in other formats, with faults."""
    rows: list[dict[str, Any]] = [
        {"file_name": f"{row:03d}.png", "captions": captions(row)[:3], "caption_kinds": ["short", "medium", "long"],
         "split": "train" if row < 90 else "validation" if row < 120 else "test", "long": captions(row)[5],
         "attributes": json.dumps(scene(row)[1]), "ground": scene(row)[1]["background"]} for row in range(160)]
    put("world/captions.jsonl", rows)
    draw([f"world/{one['file_name']}" for one in rows])
    put("essays.jsonl", [{"image": one["file_name"], "caption": one["long"], "split": "test"} for one in rows[-20:]])
    put("plain/captions.csv", "file_name,caption\n" + "".join(f'{at}.png,"{captions(at)[2]}"\n' for at in range(60)))
    draw([f"plain/{row}.png" for row in range(59)])
    images = [{"id": row, "file_name": f"{row}.png"} for row in range(9)]
    told = [{"id": at, "image_id": at % 9, "caption": text} for at, text in enumerate(["", *captions(0), *captions(1)])]
    put("annotations/captions_val.json", {"images": images, "annotations": told})
    draw(["texts/train/a.jpg", "texts/train/b.jpg", "texts/train/c.jpg"])
    put("texts/train/a.txt", "\n".join(captions(0)))
    put("pairs.csv", f"image,caption\nworld/003.png,{captions(3)[1]}\nworld/004.png,{captions(4)[1]}\nnone.png,a dog\n")
    with tarfile.open("shard.tar", "w") as tar:
        for row in range(32):
            picture = Path(f"world/{row:03d}.png").read_bytes()
            texts = {"txt": captions(row)[1].encode(), "syn.txt": captions(row)[5].encode()}
            for end, data in {**texts, "png": picture}.items():
                member = tarfile.TarInfo(f"{row:04d}.{end}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def published_data() -> None:
    """A dozen pictures in the layouts of the published benchmarks."""
    rows = range(12)
    said = [captions(row)[:5] for row in rows]
    jpg, long = [f"{row}.jpg" for row in rows], [captions(row)[5] for row in rows]
    coco = [f"val2014/COCO_val2014_{row:012}.jpg" for row in rows]
    lines = [(jpg[row], number, text) for row in rows for number, text in enumerate(said[row])]
    put("coco/coco_karpathy_test.json", [{"image": coco[row % 12] if row < 12 else "gone.jpg", "caption": said[row % 12]}
                                         for row in range(13)])
    put("coco-original/dataset_coco.json", {"images": [
        {"filename": Path(coco[row]).name, "filepath": "val2014", "split": "train" if row == 5 else "test", "cocoid": row,
         "sentences": [{"raw": text} for text in said[row]]} for row in rows]})
    put("coco2017/annotations/captions_val2017.json", {
        "images": [{"id": row, "file_name": jpg[row]} for row in rows],
        "annotations": [{"id": at, "image_id": at % 12, "caption": said[at % 12][at // 12]} for at in range(24)]})
    put("flickr/flickr30k_test_karpathy.txt", "image,caption\n" + "".join(f"{a},{text}\n" for a, _, text in lines))
    put("flickr/results_20130124.token", "".join(f"{name}#{number}\t{text}\n" for name, number, text in lines))
    put("docci/docci_descriptions.jsonlines", [{"split": "train" if row == 3 else "test", "example_id": f"{row}",
                                                "description": long[row]} for row in rows])
    for at, (part, key) in enumerate((("IIW-400", "image/key"), ("DCI_Test", "image"), ("DOCCI_Test", "image"))):
        put(f"iiw/{part}/data.jsonl", [{key: f"{row}", "IIW": long[row]} for row in range(at, 12, 3)])
    for row in rows:
        put(f"urban/Urban1k/caption/{row}.txt", f"{long[row]}\nanother line")
    put("share/share4v_sam_10k.json", [{"image": f"sam/images/{jpg[row]}", "conversations": [
        {"value": "Describe."}, {"value": f"{said[row][2]}\n{said[row][4]}\n"}]} for row in rows])
    for name, word in {"danger": "dangerous", "diff_concept": "old", "same_concept": "tiny", "rand_voca": "hot"}.items():
        altered = [[text.lower().replace("a ", f"a {word} ", 1) for text in said[row]] for row in rows]
        put(f"rococo/{name}.json", [{"image": coco[row], "caption": said[row] + altered[row]} for row in rows])
    for at, part in enumerate(("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")):
        put(f"crepe/{part}.json", {str(3 * row): {
            "filename": jpg[row] if row else "gone.jpg", "caption": said[row][1 + at % 2],
            "negative_caption": said[(row + at + 1) % 12][1 + at % 2]} for row in rows})
    put("wino/examples.jsonl", [{"id": row, "image_0": f"{row}", "image_1": f"{row + 1}", "caption_0": said[row][2],
                                 "caption_1": said[row + 1][2]} for row in range(0, 12, 2)])
    boxes = [{"image_path": jpg[at % 12], "bbox_x": 5 * (at % 3), "bbox_y": 4, "bbox_w": 80, "bbox_h": 90,
              "true_caption": said[at % 12][2], "false_caption": said[(at + 5) % 12][2], "attributes": ["red", "blue"],
              "relation_name": ("on", "near", "behind")[at % 3]} for at in range(30)]
    put("aro/visual_genome_relation.json", boxes)
    put("aro/visual_genome_attribution.json", boxes)
    put("templates.txt", "{}\na drawing of a {}\n")
    put("names.txt", "gem\nblock\nstar\nwedge\n")
    for folder in ("coco2017/val2017", "flickr/flickr30k-images", "docci/images", "iiw/docci", "urban/Urban1k/image",
                   "share/sam/images", "crepe/val2017", "aro/images"):
        draw([f"{folder}/{name}" for name in jpg])
    draw([f"coco/{name}" for name in coco])
    draw([f"wino/images/{row}.png" for row in rows])
    draw([f"classes/{scene(row)[1]['objects'][0]['shape']}/{row}.png" for row in range(40)])
# fmt: on


def clean(text: str) -> str:
    """Without places, times, versions and fingerprints."""
    text = text.replace(os.getcwd(), "WORK")
    for pattern, instead in VOLATILE.items():
        text = re.sub(pattern, instead, text)
    return text.strip("│╭╮╰╯─ ")


def lines_of(text: str) -> list[str]:
    """Clean lines, without blank ones, progress bars and what only the first run on a machine says."""
    lines = [clean(line) for line in re.split(r"[\r\n]+", text)]
    return [line for line in lines if line and not re.search(r"\[[\d:?]+<|\[\d\d:\d\d|Installing the emoji", line)]


def summary(values: Any) -> dict[str, Any]:
    """An array in a few numbers: count, NaN; mean, spread, ends, mean weighted by place; the first."""
    import numpy as np

    flat = np.asarray(values).astype(np.float64).ravel()
    there = flat[~np.isnan(flat)]
    weighted = (np.cos(0.7 * np.arange(flat.size) + 0.3) * np.nan_to_num(flat)).sum() / max(flat.size, 1)
    numbers = [there.mean(), there.std(), there.min(), there.max(), weighted] if there.size else []
    told = [[float(f"{number:.8g}") for number in some] for some in (numbers, there[:3])]
    return {"shape": list(np.shape(values)), "nan": flat.size - there.size, "numbers": told[0], "first": told[1]}


def pruned(value: Any) -> Any:
    """Of json what is short and stands nowhere else in the record."""
    if isinstance(value, dict):
        return {key: pruned(one) for key, one in value.items() if key not in ("examples", "figures", "facts")}
    if isinstance(value, list):
        return [pruned(one) for one in (value if len(value) <= 12 else [len(value), *value[:2], value[-1]])]
    return (clean(value) if len(value) <= 200 else "<long>") if isinstance(value, str) else value


class Words(HTMLParser):
    """The words of a page in reading order, those that describe pictures and figures among them."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.text = False, ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = [value for name, value in attrs if name in ("alt", "aria-label") and value]
        self.hidden = tag == "style"
        self.text += "\n" if tag in BREAKS else " | " if tag in ("td", "th", "dd", "img") or told else " "
        self.text += " ".join(told)

    def handle_endtag(self, tag: str) -> None:
        self.hidden = False
        self.text += "\n" if tag in BREAKS and tag != "dt" else " "

    def handle_data(self, data: str) -> None:
        self.text += "" if self.hidden else " ".join(re.split(r"\s+", data))


def attempt(record: Record, section: str, name: str, ask: Callable[[], Any]) -> None:
    """Keeps what `ask` gives, or the error that it ends with."""
    started = time.monotonic()
    try:
        record[section][name] = ask()
    except Exception as error:
        record[section][name] = {"error": clean(f"{type(error).__name__}: {error}")}
    print(f"{time.monotonic() - started:6.1f} s  {section}: {name}", flush=True)


def say(line: str) -> dict[str, Any]:
    """Exit code and lines of a command: run in this process, where a second for imports is spent once."""
    words = shlex.split(line)
    if words[0] == "python":
        environment = {**os.environ, "PYTHONPATH": str(package().parent)}
        done = subprocess.run(
            [sys.executable, *words[1:]], env=environment, capture_output=True, text=True, check=False
        )
        return {"code": done.returncode, "out": lines_of(done.stdout), "err": lines_of(done.stderr)}
    from boresight.cli.main import main as boresight

    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            boresight(words)
        except SystemExit as stop:
            code = int(stop.code or 0)
    return {"code": code, "out": lines_of(out.getvalue()), "err": lines_of(err.getvalue())}


def run_commands(record: Record) -> None:
    """Every line of commands.json; a benchmark without --out goes to a folder of its own below runs/."""
    for line in json.loads(COMMANDS.read_text(encoding="utf-8")):
        words = line.format(editor=f"'{shipped('tiny-editor')}'", caption=f"'{captions(3)[1]}'")
        if line.startswith("evaluate") and "--data" in line and "--out" not in line:
            words += f" --out runs/{re.sub(r'[^a-z0-9]+', '-', line[9:])}"
        if line.startswith("report runs"):
            words = words.replace("runs", shlex.join(map(str, sorted(Path("runs").iterdir()))), 1)
        attempt(record, "commands", line, lambda words=words: say(words))


# fmt: off
def run_python(record: Record) -> None:
    """The names at the top of the package: reading, embedding, fitting, scoring, explaining."""
    import boresight as bs

    for source in ("world", "plain", "shard.tar", "texts", "annotations/captions_val.json"):
        options = {"images": "plain"} if source.startswith("annotations") else {}
        attempt(record, "collections", source, lambda s=source, o=options: contents(bs.load_collection(s, **o)))
    encoder = bs.load_encoder(str(shipped("tiny-clip")))
    parts = bs.embed(encoder, bs.train_validation_test(bs.load_collection("plain")), "made/python", tokens=True)
    sae = bs.SparseAutoencoder.fit(parts.train, n_latents=32, k=4, seed=0)
    editor = bs.CaptionEditor.fit(sae, parts.train, parts.validation, seed=0, steps=20)
    reader = bs.CaptionEditor.fit(sae, parts.train, parts.validation, mask="tokens", form="residual", seed=0, steps=20)
    arrays = bs.Embeddings.from_arrays(parts.images, parts.texts, parts.owners)
    asked: dict[str, Callable[[], Any]] = {
        "names": lambda: sorted(bs.__all__),
        "splits": lambda: {name: list(getattr(parts, name).ids) for name in ("validation", "test")},
        "images": lambda: summary(parts.images), "texts": lambda: summary(parts.texts),
        "scores": lambda: summary(editor.score(parts.test.images, parts.test.texts)),
        "plain": lambda: lines_of(str(bs.evaluate_retrieval(parts.train))),
        "edited": lambda: lines_of(str(bs.evaluate_retrieval(parts.train, editor))),
        "edited by words": lambda: lines_of(str(bs.evaluate_retrieval(parts.train, reader))),
        "arrays, kinds": lambda: lines_of(str(bs.evaluate_retrieval(arrays, kinds=["a", "b"] * 29 + ["a"]))),
    }
    for name, ask in asked.items():
        attempt(record, "python", name, ask)
    pictures, texts = [scene(row)[0] for row in (3, 4)], [captions(row)[1] for row in (3, 4)]
    methods = ("m2ib", "bottleneck-path", "gradient-x-input", "integrated-gradients", "grad-cam", "chefer", "legrad",
               "rollout", "occlusion", "rise", "kernelshap", "random", "uniform")
    given: dict[str, dict[str, Any]] = {name: {"method": name} for name in methods}
    given |= {"image": {"target": "image"}, "text": {"target": "text"}, "product": {"pairs": "product", "layer": 2},
              "interaction": {"method": "uniform", "interaction": True}, "other seed": {"seed": 7}}
    for name, more in given.items():
        attempt(record, "explain", name, lambda m=more: maps(bs.explain(encoder, pictures, texts, **{"seed": 0, **m})))


def contents(found: Any) -> dict[str, Any]:
    """A collection in a few words."""
    return {"images": len(found), "captions": sum(map(len, found.captions)), "ids": list(found.ids[:4]),
            "first": list(found.captions[0]), "splits": sorted(set(found.splits)),
            "problems": [clean(str(one)) for one in found.problems][:5]}


def maps(found: Any) -> dict[str, Any]:
    """What `explain` found."""
    kept = {name: getattr(found, name) for name in ("score", "image", "text", "boxes", "interaction")}
    kept |= {} if found.image is None else {"heatmap": found.heatmap((24, 24))}
    words = [f"{word.text} {word.weight:.6g}" for row in found.words for word in row]
    return {**{name: summary(value) for name, value in kept.items() if value is not None}, "words": words}
# fmt: on


def read_files(record: Record) -> None:
    """What was written: pages, tables, and json without its pictures and arrays in a few numbers."""
    import numpy as np
    from safetensors.numpy import load_file

    def of(file: Path) -> tuple[str, Any]:
        if file.suffix in (".npz", ".safetensors"):
            arrays = dict(np.load(file)) if file.suffix == ".npz" else load_file(file)
            return "files", summary(
                np.concatenate([arrays[key].ravel() for key in arrays if arrays[key].dtype.kind == "f"])
            )
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".json":
            return "files", pruned(json.loads(text))
        if file.suffix == ".html":
            page = Words()
            page.feed(text)
            return "pages", lines_of("\n".join(" ".join(line.split()) for line in page.text.split("\n")))
        # A line for all figures of a row: what differs in the last two cells alone stands together.
        rows = groupby(lines_of(text), key=lambda line: line.rsplit(",", 2)[0] if file.suffix == ".csv" else line)
        return "tables", [
            " ".join([key, *(line.rsplit(",", 1)[-1] for line in some if line != key)]) for key, some in rows
        ]

    for file in sorted(Path("made").rglob("*")) + sorted(Path("runs").rglob("*")):
        if file.suffix in (".npz", ".safetensors", ".json", ".html", ".csv", ".jsonl"):
            if not file.name.startswith(("tokenizer", "preprocessor", "processor", "finished", "config.")):
                section, found = of(file)
                attempt(record, section, str(file), lambda found=found: found)


def package() -> Path:
    """The folder of the boresight that is recorded."""
    import boresight

    return Path(str(boresight.__file__)).resolve().parent


def shipped(name: str) -> Path:
    """A model that comes with boresight, wherever it lies in it."""
    return next(folder for folder in sorted(package().rglob(name)) if folder.is_dir())
