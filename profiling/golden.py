"""The golden record: what every command says and draws, to be the same before and after the code has moved.

    python profiling/golden.py make OUT.json [--work DIR]
    python profiling/golden.py compare A.json B.json [--rtol 1e-5] [--ignore PATTERN]...

`make` runs the commands of golden/plan.json, and the names that `import boresight` gives, on pictures and files that it
makes by that plan and on the built-in emoji and scenes. It records the boresight that Python finds first: choose by
PYTHONPATH. Sections of the record: `commands` (printed lines), `pages` (words of the HTML, a line a row of a table),
`tables` (csv, captions), `collections`, `python`, `explain`, and `files` (json and arrays on disk).
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import difflib
import fnmatch
import io
import json
import math
import os
import random
import re
import shlex
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

Record = dict[str, dict[str, Any]]
PLAN = json.loads((Path(__file__).resolve().parent / "golden" / "plan.json").read_text(encoding="utf-8"))
MISSING = "<not there>"


def scene(row: int) -> tuple[Image.Image, dict[str, Any]]:
    """A picture of one to three things on a ground, and its truth."""
    numbers, words = random.Random(f"scene {row}"), PLAN["world"]
    ground = numbers.choice(list(words["grounds"]))
    picture, things = Image.new("RGB", (96, 96), tuple(words["grounds"][ground])), []
    for cell in numbers.sample(range(9), numbers.randint(1, 3)):
        size, colour, shape = (numbers.choice(list(words[what])) for what in ("sizes", "colours", "shapes"))
        x, y, r = 16 + 32 * (cell % 3), 16 + 32 * (cell // 3), words["sizes"][size]
        corners = [(x + r * across, y + r * down) for across, down in words["shapes"][shape]]
        ImageDraw.Draw(picture).polygon(corners, fill=tuple(words["colours"][colour]))
        things.append({"shape": shape, "size": size, "colour": colour, "place": words["places"][cell]})
    return picture, {"background": ground, "objects": things}


def captions(row: int) -> list[str]:
    """Five captions of `scene(row)`, the first three of growing richness, and one longer than the model reads."""
    truth = scene(row)[1]
    things, ground = truth["objects"], f"on a {truth['background']} background"
    short = "a {colour} {shape}".format(**things[0])
    medium = " and ".join("a {size} {colour} {shape}".format(**one) for one in things)
    long = " and ".join("a {size} {colour} {shape} at the {place}".format(**one) for one in things)
    told = PLAN["world"]["story"].format(medium=medium, long=long, ground=ground)
    return [short, medium, f"{long}, {ground}", f"a picture of {short}.", f"There is {medium} {ground}.", told]


def filled(what: Any, row: int = 0) -> Any:
    """A template of the plan with the words of a row in it; what stands under 'each' and 'keyed' once for every row."""
    if isinstance(what, dict) and "keyed" in what:
        return {str(3 * each): filled(what["keyed"], each) for each in range(*what["rows"])}
    if isinstance(what, dict) and "each" in what:
        return [filled(what["each"], each) for each in range(*what["rows"])]
    if isinstance(what, dict):
        return {key: filled(one, row) for key, one in what.items()}
    if isinstance(what, list):
        parts = [filled(one, row) for one in what]
        return [one for part in parts for one in (part if isinstance(part, list) else [part])]
    text = what.format(**words(row)) if isinstance(what, str) else what
    return int(text[1:]) if str(text).startswith("=") else text


def words(row: int) -> dict[str, Any]:
    """What a template can name: captions of the row and of the next one, its split, its truth, its first thing."""
    truth, split = scene(row)[1], "train" if row < 90 else "validation" if row < 120 else "test"
    said = {f"c{place}": text for place, text in enumerate(captions(row))}
    said |= {f"n{place}": text for place, text in enumerate(captions(row + 1))}
    said |= {"split": split, "truth": json.dumps(truth), "ground": truth["background"]}
    return {"row": row, "next": row + 1, **truth["objects"][0], **said}


def write_data() -> None:
    """The pictures and files of the plan, and tar shards."""
    for name, count in PLAN["pictures"].items():
        for row in range(count):
            file = Path(name.format(**words(row)))
            file.parent.mkdir(parents=True, exist_ok=True)
            scene(row)[0].save(file, quality=95)
    for name, what in PLAN["files"].items():
        for row in range(*what["rows"]) if "{" in name else [0]:
            file, content = Path(name.format(row=row)), filled(what["each"] if "{" in name else what, row)
            lines = [content] if isinstance(content, str) or file.suffix == ".json" else content
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines))
    with tarfile.open("shard.tar", "w") as tar:
        for row in range(32):
            said = {"txt": captions(row)[1].encode(), "syn.txt": captions(row)[5].encode()}
            for end, content in {**said, "png": Path(f"world/{row:03d}.png").read_bytes()}.items():
                member = tarfile.TarInfo(f"{row:04d}.{end}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def clean(text: str) -> str:
    """Without places, times, versions and fingerprints."""
    text = text.replace(os.getcwd(), "WORK")
    for pattern, instead in PLAN["volatile"].items():
        text = re.sub(pattern, instead, text)
    return text.strip("│╭╮╰╯─ ")


def lines_of(text: str) -> list[str]:
    """Clean lines, without blank ones, progress bars and what only the first run on a machine says."""
    lines = [clean(line) for line in re.split(r"[\r\n]+", text)]
    return [line for line in lines if line and not re.search(r"\[[\d:?]+<|\[\d\d:\d\d|Installing the emoji", line)]


def summary(values: Any) -> dict[str, Any]:
    """An array in a few numbers: mean, spread, ends, mean weighted by place; the first three."""
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
        return [pruned(one) for one in (value if len(value) <= 6 else [len(value), *value[:2], value[-1]])]
    if isinstance(value, str):
        return clean(value) if len(value) <= 200 else "<long>"
    return float(f"{value:.8g}") if isinstance(value, float) else value


class Words(HTMLParser):
    """The words of a page in reading order, those that describe pictures and figures among them."""

    hidden, text = False, ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = " ".join(value for name, value in attrs if name in ("alt", "aria-label") and value)
        self.hidden = tag == "style"
        self.text += ("\n" if tag in PLAN["breaks"] else " | " if told or tag in ("td", "th", "dd") else " ") + told

    def handle_endtag(self, tag: str) -> None:
        self.hidden = False
        self.text += "\n" if tag in PLAN["breaks"] else " "

    def handle_data(self, data: str) -> None:
        self.text += "" if self.hidden else re.sub(r"\s+", " ", data)


def attempt(record: Record, section: str, name: str, ask: Callable[[], Any]) -> None:
    """Keeps what `ask` gives, or the error that it ends with."""
    started = time.monotonic()
    try:
        record[section][name] = ask()
    except Exception as error:
        record[section][name] = {"error": clean(f"{type(error).__name__}: {error}")}
    print(f"{time.monotonic() - started:6.1f} s  {section}: {name}", flush=True)


def say(words: list[str]) -> dict[str, Any]:
    """Exit code and lines of a command, run in this process."""
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
    """Every command of the plan; a benchmark without --out goes to a folder of its own below runs/."""
    for line in PLAN["commands"]:
        words = shlex.split(line.format(caption=f"'{captions(3)[1]}'"))
        if line.startswith("evaluate") and "--data" in line and "--out" not in line:
            words += ["--out", "runs/" + re.sub(r"[^a-z0-9]+", "-", line[9:])]
        words = [each for word in words for each in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
        attempt(record, "commands", line, lambda words=words: say(words))


# fmt: off
def run_python(record: Record) -> None:
    """The names at the top of the package: reading, embedding, fitting, scoring, explaining."""
    import boresight as bs

    for source, more in PLAN["collections"].items():
        found = bs.load_collection(source, **more)
        few = [len(found), len(found.texts), found.ids[:4], found.texts[:4], sorted(set(found.splits)), found.problems]
        record["collections"][source] = [clean(str(one)) for one in few]
    encoder = bs.load_encoder(str(shipped("tiny-clip")))
    plain = bs.embed(encoder, bs.train_validation_test(bs.load_collection("plain")), "made/python")
    arrays = bs.Embeddings.from_arrays(plain.images, plain.texts, plain.owners)
    parts = bs.Embeddings.load("made/embeddings")
    sae = bs.SparseAutoencoder.fit(parts.train, n_latents=32, k=4, seed=0)
    editor = bs.CaptionEditor.fit(sae, parts.train, parts.validation, seed=0, steps=100)
    asked: dict[str, Callable[[], Any]] = {
        "names": lambda: sorted(bs.__all__),
        "splits": lambda: {name: list(getattr(plain, name).ids) for name in ("validation", "test")},
        "images": lambda: summary(plain.images), "texts": lambda: summary(plain.texts),
        "scores": lambda: summary(editor.score(parts.test.images, parts.test.texts)),
        "plain": lambda: lines_of(str(bs.evaluate_retrieval(parts.test))),
        "edited": lambda: lines_of(str(bs.evaluate_retrieval(parts.test, editor))),
        "kinds": lambda: lines_of(str(bs.evaluate_retrieval(arrays, kinds=["a", "b"] * 29 + ["a"]))),
    }
    for name, ask in asked.items():
        attempt(record, "python", name, ask)
    pictures, texts = [scene(row)[0] for row in (3, 4)], [captions(row)[1] for row in (3, 4)]
    for name, more in PLAN["explain"].items():
        attempt(record, "explain", name, lambda m=more: maps(bs.explain(encoder, pictures, texts, **{"seed": 0, **m})))


# fmt: on


def maps(found: Any) -> dict[str, Any]:
    """What `explain` found."""
    kept = {name: getattr(found, name) for name in ("score", "image", "text", "boxes", "interaction")}
    kept |= {} if found.image is None else {"heatmap": found.heatmap((24, 24))}
    words = [f"{word.text} {word.weight:.6g}" for row in found.words for word in row]
    return {**{name: summary(value) for name, value in kept.items() if value is not None}, "words": words}


def read_file(file: Path) -> tuple[str, Any]:
    """The section of a file that was written, and what is kept of it."""
    import numpy as np
    from safetensors.numpy import load_file

    if file.suffix in (".npz", ".safetensors"):
        arrays = sorted((np.load(file) if file.suffix == ".npz" else load_file(file)).items())
        return "files", summary(np.concatenate([each.ravel() for _, each in arrays if each.dtype.kind == "f"]))
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".json":
        return "files", pruned(json.loads(text))
    if file.suffix == ".html":
        (page := Words()).feed(text)
        return "pages", lines_of(re.sub(r" +", " ", page.text))
    rows = groupby(csv.reader(text.splitlines()), lambda cells: cells[:4])  # all values of a row, seed and kind
    few = ["; ".join([*key, *(cells[-1] for cells in some)]) for key, some in rows]
    return "tables", few if file.name == "comparison.csv" else lines_of(text)


def shipped(name: str) -> Path:
    """A model that comes with boresight, wherever it lies in it."""
    import boresight

    return next(place for place in Path(str(boresight.__file__)).resolve().parent.rglob(name) if place.is_dir())


def make(out: Path, work: Path) -> None:
    """Run everything in the new folder `work`; write the record."""
    out, started = out.resolve(), time.monotonic()
    work.mkdir(parents=True)
    sys.path[:] = [os.path.abspath(place) for place in sys.path]
    os.environ.update(PLAN["environment"])
    print(f"Recording {shipped('tiny-clip').parents[1]}")
    record: Record = {name: {} for name in PLAN["sections"]}
    with contextlib.chdir(work):
        write_data()
        run_commands(record)
        attempt(record, "python", "all", lambda: run_python(record))
        for file in sorted([*Path("made").rglob("*"), *Path("runs").glob("*/*")]):
            if re.fullmatch(PLAN["kept"], file.name):
                section, found = read_file(file)
                record[section][str(file)] = found
    out.write_text(json.dumps(record, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
    seconds = f"{time.process_time():.0f} s of computing in {time.monotonic() - started:.0f} s"
    print(f"{seconds}, {out.stat().st_size / 1000:.0f} kB: {out}")


def differences(a: Any, b: Any, rtol: float, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Path and both values of every leaf that differs by more than rounding."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys((*a, *b)):
            yield from differences(a.get(key, MISSING), b.get(key, MISSING), rtol, f"{path}/{key}".lstrip("/"))
    elif isinstance(a, list) and isinstance(b, list):
        pairs = list(enumerate(zip_longest(a, b, fillvalue=MISSING)))
        if len(a) != len(b) and all(isinstance(one, str) for one in (*a, *b)):
            close = ([" ".join(line.split()) for line in each] for each in (a, b))
            changes = difflib.SequenceMatcher(None, *close, autojunk=False).get_opcodes()
            pairs = [
                (first + place, pair)
                for kind, first, last, start, stop in changes
                for place, pair in enumerate(zip_longest(a[first:last], b[start:stop], fillvalue=MISSING))
            ]
        for place, (one, other) in pairs:
            yield from differences(one, other, rtol, f"{path}/{place}")
    elif not same(a, b, rtol):
        yield path, a, b


def same(a: Any, b: Any, rtol: float) -> bool:
    """Equal, texts up to the spaces in them; floats, those with a point inside texts too, up to rounding."""
    if isinstance(a, str) and isinstance(b, str):
        a, b = " ".join(a.split()), " ".join(b.split())
        number = re.compile(r"-?\d+\.\d+(?:e[-+]?\d+)?")
        pairs = zip(number.findall(a), number.findall(b), strict=False)
        return number.sub("#", a) == number.sub("#", b) and all(same(float(x), float(y), rtol) for x, y in pairs)
    if {type(a), type(b)} <= {int, float} and float in (type(a), type(b)):
        return math.isclose(a, b, rel_tol=rtol, abs_tol=1e-6) or (math.isnan(a) and math.isnan(b))
    return type(a) is type(b) and a == b


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making, comparing = commands.add_parser("make"), commands.add_parser("compare")
    making.add_argument("out", type=Path)
    making.add_argument("--work", type=Path, help="a new folder, which is kept; left out, one that is deleted")
    comparing.add_argument("records", type=Path, nargs=2)
    comparing.add_argument("--rtol", type=float, default=1e-5)
    comparing.add_argument("--ignore", action="append", default=[], help="paths of leaves, such as 'files/*'")
    asked = parser.parse_args()
    if asked.command == "make":
        with tempfile.TemporaryDirectory() as place:
            return make(asked.out, asked.work or Path(place) / "work")
    found = list(differences(*(json.loads(file.read_text(encoding="utf-8")) for file in asked.records), asked.rtol))
    found = [each for each in found if not any(fnmatch.fnmatch(each[0], pattern) for pattern in asked.ignore)]
    for path, a, b in found:
        print(f"{path}\n  - {str(a)[:400]}\n  + {str(b)[:400]}")
    print(f"{len(found)} leaves differ." if found else "Equal.")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
