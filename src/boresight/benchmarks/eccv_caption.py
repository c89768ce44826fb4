"""ECCV Caption (arXiv 2204.03359) and CxC (2004.15020): COCO's test queries with all the right answers people found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from boresight.benchmarks.files import PublishedFiles, with_annotations
from boresight.benchmarks.retrieval import Figures, PublishedRetrieval, from_rows
from boresight.data.rows import SourceRow
from boresight.editing.scorer import Scorer
from boresight.embeddings import Embeddings
from boresight.evaluation.answers import evaluate_answers

SOURCE = (
    "https://github.com/naver-ai/eccv-caption, folder eccv_caption/data; captions and pictures: https://cocodataset.org"
)
_FOLDERS = ("", "data/", "eccv_caption/", "eccv_caption/data/")
_FIGURES = {"cxc": ("R@1", "R@5", "R@10"), "eccv": ("R@1", "R-Precision", "mAP@R")}
_TITLES = {"cxc": "CxC", "eccv": "ECCV"}


@from_rows
def read_test(files: PublishedFiles) -> Iterator[SourceRow]:
    """The test images with five captions each, in the order of `coco_test_ids.npy`; ids are COCO's numbers."""
    names, captions = _coco(files)
    for image, ids in _captions_by_image(files, captions).items():
        texts = [captions[caption][1].strip() for caption in ids]
        if image not in names or not all(texts):
            raise files.torn(f"image {image} of captions_val2014.json", "has no file name, or an empty caption")
        yield SourceRow(names[image], names[image], texts, f"image {image}", id=str(image), split="test")


def more_answers(files: PublishedFiles, embeddings: Embeddings) -> Figures:
    """CxC's recalls, and ECCV Caption's R@1, R-Precision and mAP@R, as naver-ai/eccv-caption computes them.

    A right answer that is not in the gallery counts in R and is never found: two of ECCV Caption's, by its design, and
    those whose picture is missing.
    """
    of_image = _captions_by_image(files, _coco(files)[1])
    images = {int(identity): row for row, identity in enumerate(embeddings.ids)}
    rows = [caption for image in images for caption in of_image[image]]
    captions = {caption: row for row, caption in enumerate(rows)}
    answers = {
        name: (
            _answers(files, f"{name}_caption_to_image.json", captions, images),
            _answers(files, f"{name}_image_to_caption.json", images, captions),
        )
        for name in _FIGURES
    }

    def figures(scorer: Scorer) -> dict[str, float]:
        found = {name: evaluate_answers(embeddings, *both, scorer) for name, both in answers.items()}
        return {
            f"{_TITLES[name]} {direction} {measure}": found[name][f"{direction} {measure}"]
            for name, measures in _FIGURES.items()
            for direction in ("T2I", "I2T")
            for measure in measures
        }

    return figures


def _coco(files: PublishedFiles) -> tuple[dict[int, str], dict[int, tuple[int, str]]]:
    """From captions_val2014.json: image -> its file's name, and caption -> its image and text."""
    file = files.find(*with_annotations("captions_val2014.json"))
    content = files.read_json(file, dict)
    try:
        names = {int(image["id"]): str(image["file_name"]) for image in content["images"]}
        captions = {int(one["id"]): (int(one["image_id"]), str(one["caption"])) for one in content["annotations"]}
    except (KeyError, TypeError, ValueError) as error:
        raise files.torn(file, f"is not COCO's ({type(error).__name__}: {error})") from error
    return names, captions


def _captions_by_image(files: PublishedFiles, captions: Mapping[int, tuple[int, str]]) -> dict[int, list[int]]:
    """Test image -> its captions, both as coco_test_ids.npy has them in order."""
    file = files.find(*(folder + "coco_test_ids.npy" for folder in _FOLDERS))
    try:
        ids = np.load(file, allow_pickle=False).tolist()
        of_image: dict[int, list[int]] = defaultdict(list)
        for caption in ids:
            of_image[captions[caption][0]].append(caption)
    except KeyError as error:
        raise files.torn(file, f"names the caption {error}, which captions_val2014.json lacks") from error
    except (OSError, ValueError, TypeError) as error:
        raise files.torn(file, f"is no list of numbers ({error})") from error
    return of_image


def _answers(
    files: PublishedFiles, name: str, queries: Mapping[int, int], gallery: Mapping[int, int]
) -> dict[int, list[int]]:
    """Row of a query -> rows of its right answers, -1 for one outside the gallery; missing queries are left out."""
    file = files.find(*(folder + name for folder in _FOLDERS))
    content: dict[str, Sequence[int]] = files.read_json(file, dict)
    try:
        asked = {queries[int(query)]: list(answers) for query, answers in content.items() if int(query) in queries}
        return {
            row: [gallery.get(int(answer), -1) for answer in dict.fromkeys(answers)] for row, answers in asked.items()
        }
    except (ValueError, TypeError) as error:
        raise files.torn(file, f"has an entry that is not numbers by number ({error})") from error


SETS = (
    PublishedRetrieval(
        "eccv-caption",
        "ECCV Caption and CxC (COCO, Karpathy test, 25,000 captions)",
        SOURCE,
        read_test,
        ("val2014", "images/val2014", "images", ""),
        (5000, 25000),
        more=more_answers,
    ),
)
