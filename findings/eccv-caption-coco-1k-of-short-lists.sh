#!/bin/bash
# eccv_caption 0.1.0: COCO 1k recalls of lists as long as its own example makes them.
#
# One would expect: recall at 10 in a fold of 1,000 images says whether a right image is among the first 10 of that
# fold, whatever further down the list is left out; or an error where the list is too short to tell.
# What happens: `coco_1k_recalls` takes the given lists, over all 5,000 images, and keeps of each what lies in the fold.
# A list of 50, as the example of the package cuts them, leaves about 10 of 1,000 images and often
# fewer, so right answers are lost without a word and R@5 and R@10 come out too low. R@1 is the same.
# Who is hurt: whoever prints COCO 1k R@5 or R@10 by the published example; beside figures from whole lists they look
# worse than they are.
#
# Prints version, behaviour and output; exits 1 once the figures no longer depend on the length of the lists.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check eccv_caption==0.1.0 numpy==2.3.5 tqdm==4.67.1 ujson==5.11.0
"$folder/venv/bin/python" -W ignore - <<'END'
import sys
from importlib.metadata import version

import numpy as np
from eccv_caption import Metrics

metrics = Metrics()
owner = {caption: images[0] for caption, images in metrics.coco_gts["t2i"].items()}
captions = np.array(metrics.coco_ids)
images = np.array(list(dict.fromkeys(owner[int(caption)] for caption in captions)))
row = {image: number for number, image in enumerate(images.tolist())}
draw = np.random.default_rng(0)
pictures = draw.normal(size=(len(images), 32))
texts = pictures[[row[owner[int(caption)]] for caption in captions]] + 2.0 * draw.normal(size=(len(captions), 32))
pictures /= np.linalg.norm(pictures, axis=1, keepdims=True)
texts /= np.linalg.norm(texts, axis=1, keepdims=True)


def ranked(asked, gallery, ids, k):
    found = []
    for start in range(0, len(asked), 1000):
        scores = asked[start : start + 1000] @ gallery.T
        first = np.argpartition(-scores, k, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(scores, first, 1), axis=1)
        found += ids[np.take_along_axis(first, order, 1)].tolist()
    return found


long = 800
t2i = dict(zip(captions.tolist(), ranked(texts, pictures, images, long), strict=True))
i2t = dict(zip(images.tolist(), ranked(pictures, texts, captions, long), strict=True))
print("eccv_caption", version("eccv_caption"))
figures = {}
for length in (50, long):
    lists = {"i2t": {q: r[:length] for q, r in i2t.items()}, "t2i": {q: r[:length] for q, r in t2i.items()}}
    for k in (1, 5, 10):
        figures[length, k] = metrics.coco_1k_recalls(lists, "all", K=k)
        shown = {name: round(100 * float(value), 2) for name, value in figures[length, k].items()}
        print(f"COCO 1k R@{k:<2} from lists of {length:>3}: {shown}")
lost = figures[long, 10]["t2i"] - figures[50, 10]["t2i"]
print(f"T2I R@10 lost without a word: {100 * lost:.2f} points")
sys.exit(0 if lost > 0.001 else 1)
END
