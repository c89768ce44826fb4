"""What an emoji shows, in the words of the people who named it: emojibase's labels, keywords, short codes, groups.

Its three captions, from bare to rich, are in these words too; the sentence frames are ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from boresight.data.sentences import enumeration

KINDS = ("short", "medium", "long")  # of captions
_WORDS = json.loads((resources.files("boresight.data.worlds.emoji") / "words.json").read_bytes())
SHORTCODES, HAIR, PEOPLE = _WORDS["shortcodes"], _WORDS["hair"], _WORDS["people"]
NEUTRAL: Mapping[str, str] = _WORDS["neutral"]  # names that do not follow by putting in "man" or "woman"
GENDERED: Mapping[str, str] = _WORDS["gendered"]


@dataclass(frozen=True)
class Concept:
    """One emoji, whoever draws it.

    Attributes:
        code: code points in lower-case hex joined by '-', without the presentation selector: '1f469-1f3fe-200d-1f692'.
        label: 'woman firefighter: medium-dark skin tone'.
        family: the label without skin tone, gender and hair: 'firefighter'.
        head: what stands before the colon of the label: 'woman firefighter'.
        details: what stands after it, without skin tones and hair: ('facing right',), ('woman', 'man').
        tones: () or ('medium-dark',) or, for two people, ('light', 'dark').
        gender: 'woman', 'man', 'mixed', or '' where the label names none.
        hair: one of HAIR, or ''.
        group, subgroup: 'people & body', 'person role'.
        tags: keywords. aliases: names from five sets of short codes, without the label itself.
    """

    code: str
    label: str
    family: str
    head: str
    details: tuple[str, ...]
    tones: tuple[str, ...]
    gender: str
    hair: str
    group: str
    subgroup: str
    tags: tuple[str, ...]
    aliases: tuple[str, ...]

    @property
    def cell(self) -> tuple[str, str]:
        """Family and skin tones, whatever the direction faced and the order of two people: ('kiss', 'dark, light')."""
        return self.family.removesuffix(" facing right"), ", ".join(sorted(self.tones))


def read_concepts(modules: Path) -> list[Concept]:
    """Every emoji of emojibase in its order, but the single letters and the bare components (skin, hair swatches)."""
    home = modules / "emojibase-data"
    entries = json.loads((home / "en" / "data.json").read_bytes())
    messages = json.loads((home / "en" / "messages.json").read_bytes())
    meta = json.loads((home / "meta" / "groups.json").read_bytes())
    names = {row["key"]: row["message"] for row in messages["groups"]}
    codes = [json.loads((home / "en" / "shortcodes" / f"{name}.json").read_bytes()) for name in SHORTCODES]
    labels = {entry["label"] for entry in entries}
    concepts = []
    for entry in sorted(entries, key=lambda row: row.get("order", 0)):
        group = meta["groups"].get(str(entry.get("group")))
        if group in (None, "component"):
            continue
        people = group == "people-body"
        family = _family(entry["label"], labels) if people else _phrase_of(entry["label"])
        for row in (entry, *entry.get("skins", ())):
            head, details, tones, hair = _parse(row["label"]) if people else (family, (), (), "")
            tags = tuple(entry.get("tags", ()))
            concepts.append(
                Concept(
                    code=plain_code(row["hexcode"]),
                    label=row["label"],
                    family=family,
                    head=head,
                    details=details,
                    tones=tones,
                    gender=_gender((head, *details)) if people else "",
                    hair=hair,
                    group=names[group],
                    subgroup=meta["subgroups"][str(entry["subgroup"])].replace("-", " "),
                    tags=tags,
                    aliases=_aliases(row, codes, {entry["label"], head, family, *tags}),
                )
            )
    return concepts


def captions_of(concept: Concept) -> list[str]:
    """Captions in the order of KINDS; each says all that the one before it says.

    short: the family alone, 'firefighter'. medium: the label as a phrase, 'woman firefighter with medium-dark skin
    tone'; where that is no more than the short one, with two keywords, 'pie: apple, filling'. long: the label as a
    phrase, its place in the catalogue, all keywords and all other names. None of them names the drawing style.
    """
    phrase = phrase_of(concept)
    words = word_set(phrase)
    extra = [name for name in (*concept.tags, *concept.aliases) if not word_set(name) <= words]
    medium = phrase
    if phrase == concept.family:
        medium = f"{phrase}: {', '.join(extra[:2]) or concept.subgroup}"
    long = f"{phrase}, among {concept.group}, {concept.subgroup}."
    if concept.tags:
        long += f" Keywords: {', '.join(concept.tags)}."
    if concept.aliases:
        long += f" Also called {enumeration(concept.aliases)}."
    return [concept.family, medium, long]


def phrase_of(concept: Concept) -> str:
    """The label as a phrase: 'man: medium skin tone, red hair' becomes 'man with medium skin tone and red hair'."""
    phrase = f"bald {concept.head}" if concept.hair == "bald" else concept.head
    if concept.details:
        people = "facing" not in concept.details[0] and "side" not in concept.details[0]
        phrase += f" of {enumeration(concept.details)}" if people else f" {' '.join(concept.details)}"
    features = [f"{tone} skin tone" for tone in concept.tones]
    if concept.hair not in ("", "bald"):
        features.append(concept.hair)
    return f"{phrase} with {enumeration(features)}" if features else phrase


def plain_code(hexcode: str) -> str:
    """Lower case, no leading zeros, and without the selector FE0F, which the picture sets write or omit at will."""
    parts = [part.lower().lstrip("0") for part in re.split("[-_]", hexcode)]
    return "-".join(part for part in parts if part != "fe0f")


def _parse(label: str) -> tuple[str, tuple[str, ...], tuple[str, ...], str]:
    """Head, details, tones, hair of a label of the group of people."""
    head, _, rest = label.partition(": ")
    parts = rest.split(", ") if rest else []
    tones = tuple(part.removesuffix(" skin tone") for part in parts if part.endswith(" skin tone"))
    hair = next((part for part in parts if part in HAIR), "")
    details = tuple(part for part in parts if not part.endswith(" skin tone") and part not in HAIR)
    return head, details, tones, hair


def _family(label: str, labels: set[str]) -> str:
    head, details, _, _ = _parse(label)
    kept = [part for part in details if part not in PEOPLE]
    name = _neutral(head, labels)
    return " ".join([name, *kept])


def _neutral(head: str, labels: set[str]) -> str:
    if head in NEUTRAL:
        return NEUTRAL[head]
    for pattern, words in ((r"\b(wo)?man\b", ("person", "")), (r"\b(wo)?men\b", ("people", ""))):
        for word in words:
            name = " ".join(re.sub(pattern, word, head).split())
            if name != head and name in labels:
                return name
    return head


def _phrase_of(label: str) -> str:
    kind, _, name = label.partition(": ")
    return {"flag": f"flag of {name}", "keycap": f"keycap {name}"}.get(kind, label) if name else label


def _gender(words: Sequence[str]) -> str:
    genders = {GENDERED[word] for text in words for word in re.findall(r"[\w.]+", text) if word in GENDERED}
    return genders.pop() if len(genders) == 1 else "mixed" if genders else ""


def _aliases(row: dict[str, Any], codes: list[dict[str, Any]], known: set[str]) -> tuple[str, ...]:
    """The short codes of an emoji as words, each once, without what is `known` and what the label does not bear out.

    Dropped are skin tones, bare code points ('u55b6'), flags by letters, people by initials ('family mwb'), and names
    of a gender that the label leaves open ('man with turban' for any person with one).
    """
    seen = word_set(" ".join(known))
    aliases = []
    for code in _written(row["hexcode"], codes):
        text = re.sub(r"_tone\d.*$", "", code)
        alias = text.strip("_").replace("_", " ").replace("-", " ") if any(map(str.isalpha, text)) else text
        noise = re.search(r"skin tone|^flag |^u[0-9a-f]{4,5}$| [mwabgc]{2,4}$|\w\d$", alias)
        gender = _gender([alias])
        if not noise and gender in ("", _gender([row["label"]])) and not word_set(alias) <= seen:
            seen |= word_set(alias)
            aliases.append(alias)
    return tuple(aliases)


def word_set(text: str) -> set[str]:
    """The distinct words of a name, in lower case."""
    return set(text.lower().replace("-", " ").split())


def _written(hexcode: str, codes: list[dict[str, Any]]) -> Iterator[str]:
    for names in codes:
        written = names.get(hexcode, ())
        yield from (written,) if isinstance(written, str) else written
