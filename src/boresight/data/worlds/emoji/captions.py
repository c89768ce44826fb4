"""Three captions for an emoji, from bare to rich: the words are emojibase's, the sentence frames are ours."""

from __future__ import annotations

from boresight.data.sentences import enumeration
from boresight.data.worlds.emoji.concepts import Concept, words_of

KINDS = ("short", "medium", "long")


def captions_of(concept: Concept) -> list[str]:
    """Captions in the order of KINDS; each says all that the one before it says.

    short: the family alone, 'firefighter'. medium: the label as a phrase, 'woman firefighter with medium-dark skin
    tone'; where that is no more than the short one, with two keywords, 'pie: apple, filling'. long: the label as a
    phrase, its place in the catalogue, all keywords and all other names. None of them names the drawing style.
    """
    phrase = phrase_of(concept)
    words = words_of(phrase)
    extra = [name for name in (*concept.tags, *concept.aliases) if not words_of(name) <= words]
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
