"""Items of composition: what makes one, and the part of a picture that counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from boresight.errors import InputError
from boresight.evaluation.contrasts import Contrast, Picture
from published_files import put_noise


@pytest.mark.parametrize("box", [(12, 0, 5, 5), (-5, 2, 5, 5), (0, 9, 3, 3)])
def test_a_box_beside_the_picture(tmp_path: Path, box: tuple) -> None:
    put_noise(tmp_path / "7.png", 12, 9)
    with pytest.raises(InputError, match=r"box .* of 'seven' shows nothing of the picture"):
        Picture("seven", tmp_path / "7.png", box).open()


def test_an_item_needs_two_captions_and_a_true_one() -> None:
    with pytest.raises(InputError, match="'p' has 1 captions of which number 0 is true"):
        Contrast(Picture("p", "p.png"), ("only",), 0, "g")
    with pytest.raises(InputError, match="number 2 is true"):
        Contrast(Picture("p", "p.png"), ("one", "two"), 2, "g")
