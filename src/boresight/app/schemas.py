"""What is asked and answered, as JSON: the description that /docs and /openapi.json show."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from boresight.attribution.methods.registry import METHODS
from boresight.search import Query
from boresight.search.query import MOST

Sentence = Annotated[str, Field(min_length=1, max_length=2000)]
ImageId = Annotated[str, Field(min_length=1, max_length=1000)]
Sentences = Sentence | Annotated[list[Sentence], Field(max_length=32)]
ImageIds = ImageId | Annotated[list[ImageId], Field(max_length=32)]
Switch = Annotated[float, Field(ge=-100, le=100)]
DRAWN = tuple(name for name in METHODS if name not in ("random", "uniform"))  # without the controls


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Asked(_Strict):
    """A query, field by field as `boresight.search.Query`; at least `text` or `like` is needed."""

    text: Sentences = Field([], description="A sentence, or several, whose scores are averaged.")
    without: Sentences = Field([], description="Sentences that the answers are not to match.")
    like: ImageIds = Field([], description="Ids of images that the answers are to be like.")
    unlike: ImageIds = Field([], description="Ids of images that the answers are not to be like.")
    latents: dict[str, Switch] = Field(
        {}, max_length=64, description="Latent, by number or name: 0 switches it off, 1 takes it as the image has it."
    )
    where: str | None = Field(None, max_length=2000, description="A filter: year > 2020 and place == 'Rome'.")
    k: int = Field(10, ge=1, le=MOST, description="How many answers.")
    offset: int = Field(0, ge=0, le=MOST, description="From which answer on.")
    min_score: Annotated[float, Field(ge=-1e6, le=1e6)] | None = Field(None, description="Answers score at least this.")
    plain: bool = Field(False, description="By the cosine, without the edit.")
    image_weight: float = Field(0.5, ge=0, le=1, description="The images' part where there is a text too.")
    without_weight: float = Field(0.5, ge=0, le=100, description="How much of what is not wanted is taken off.")

    candidates: Annotated[int, Field(ge=1, le=MOST)] | Literal["tuned"] | None = Field(
        None, description="Images that the graph of the index finds, which are then scored; null scores all."
    )
    ef_search: Annotated[int, Field(ge=1, le=MOST)] | None = Field(
        None, description="Images that the graph keeps in view, beside a number of candidates."
    )

    def query(self, **more: Any) -> Query:
        """What the index is asked. Raises InputError for what does not fit together."""
        own = {name: getattr(self, name) for name in Asked.model_fields}
        return Query(**{**own, **more})


class SearchAsked(Asked):
    """A query, and whether the rank of each answer by the cosine is found too, which reads all images."""

    ranks: bool | None = Field(None, description="Left out: where all images are read anyway, so without candidates.")

    @property
    def ranked(self) -> bool:
        """Whether ranks are found."""
        return self.candidates is None if self.ranks is None else self.ranks


class BatchAsked(_Strict):
    """Several queries at once."""

    queries: list[SearchAsked] = Field(min_length=1)


class ExplainAsked(Asked):
    """A query, and the image whose score is explained; k, offset and min_score do not matter."""

    id: ImageId


class HeatmapAsked(_Strict):
    """A sentence, and the image of the index on which a map is drawn."""

    text: Sentence
    id: ImageId
    method: Annotated[str, Field(json_schema_extra={"enum": list(DRAWN)})] = "m2ib"


class Found(BaseModel):
    """One answer; `plain_rank` is null where ranks were not asked for, `thumbnail` where there is no picture."""

    id: str
    score: float
    plain_score: float
    rank: int
    plain_rank: int | None
    moved: int
    captions: list[str]
    split: str
    columns: dict[str, Any]
    thumbnail: str | None


class Answer(BaseModel):
    """The answers to one query: how many images the filter let through, and the best of them."""

    matches: int
    edited: bool
    exact: bool
    results: list[Found]


class Answers(BaseModel):
    """Of a batch, in its order."""

    answers: list[Answer]


class Record(BaseModel):
    """What the index knows of an image."""

    id: str
    split: str
    captions: list[str]
    columns: dict[str, Any]
    thumbnail: str | None
    original: str | None


class Column(BaseModel):
    """A column that a filter may use; type: 'text', 'number', 'boolean' or 'time'."""

    name: str
    type: str


class Editor(BaseModel):
    """The editor whose score orders the answers."""

    form: str
    latents: int
    named: int


class Allowed(BaseModel):
    """How much one request may ask for."""

    k: int
    offset: int
    batch: int
    body_bytes: int
    pixels: int
    seconds: float


class Info(BaseModel):
    """What the service serves."""

    name: str
    version: str
    images: int
    width: int
    encoder: str
    edited: bool
    editor: Editor | None
    pictures: bool
    columns: list[Column]
    methods: list[str]
    comparison: bool
    limits: Allowed


class Health(BaseModel):
    """Whether the service can answer."""

    status: str
    images: int


class Latent(BaseModel):
    """A latent of the image under the text: see `boresight.editing.explanation.LatentEffect`."""

    index: int
    label: str
    certainty: float
    activation: float
    mask: float
    kept: float
    dropped: float


class Pair(BaseModel):
    """A remembered training pair that moved the score."""

    row: int
    image_id: str
    captions: list[str]
    weight: float
    effect: float


class Explained(BaseModel):
    """An edited score in parts: `grid` and, less, `hubness` sum to it."""

    grid: dict[str, dict[str, float]]
    hubness: dict[str, float]
    parts: dict[str, float]
    caption_parts: dict[str, float]
    unlisted: dict[str, float]
    latents_kept: list[Latent]
    latents_dropped: list[Latent]
    image_memory: list[Pair]
    text_memory: list[Pair]


class TermShown(BaseModel):
    """One text or image of the query; `explanation` is null for a cosine."""

    label: str
    kind: str
    weight: float
    score: float
    plain_score: float
    explanation: Explained | None


class Switched(BaseModel):
    """What switching a latent changed of the score."""

    latent: int
    label: str
    effect: float


class ReasonsShown(BaseModel):
    """Why an image has its score: weight times score of each term, and the effects of switched latents, sum to it."""

    id: str
    score: float
    terms: list[TermShown]
    switched: list[Switched]


class WordWeight(BaseModel):
    """A word of the sentence, and what of the match rests on it."""

    text: str
    weight: float


class Heatmap(BaseModel):
    """A map over a picture; `overlay` (PNG, clear where nothing is) lies over it, `image` shows both, as data URIs."""

    id: str
    text: str
    method: str
    score: float
    words: list[WordWeight]
    width: int
    height: int
    overlay: str
    image: str


class Concept(BaseModel):
    """A latent of the editor: how many images have it, and those that have most of it.

    told: of the remembered images that have it, the share whose captions keep it; null where that is not known.
    """

    latent: int
    name: str
    certainty: float
    images: int
    told: float | None
    top: list[str]


class Concepts(BaseModel):
    """The most frequent latents; `total` have an image at all."""

    total: int
    concepts: list[Concept]


class Point(BaseModel):
    """A named latent on the map of directions, x and y in [-1, 1]."""

    latent: int
    name: str
    certainty: float
    images: int
    told: float | None
    x: float
    y: float


class ConceptMap(BaseModel):
    """Directions of the named latents on their first two principal axes; `share` of their variance these hold."""

    share: float
    points: list[Point]


class TestSet(BaseModel):
    """One test set of a comparison: recalls in percent, means over seeds, and the verdict."""

    __test__ = False
    name: str
    images: int
    captions: int
    measures: list[str]
    rows: list[dict[str, Any]]
    word: str
    sentence: str
    warnings: list[str]


class VerdictShown(BaseModel):
    """What a comparison says of the editor."""

    seeds: list[int]
    tests: list[TestSet]
