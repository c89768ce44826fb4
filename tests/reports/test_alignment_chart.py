"""The figure of alignment: every measure and every pair is in it."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from boresight.editing import CaptionEditor
from boresight.editing.config import EditorConfig
from boresight.evaluation.alignment import alignment_report
from boresight.evaluation.pairs import pairs_in_plane
from boresight.reports import alignment_chart, alignment_figure
from editing_world import quiet, sae_fixture, world  # noqa: F401


def test_the_figure_shows_every_measure_and_pair(sae, monkeypatch):
    test = world(sae, 20, seed=3)
    editor = CaptionEditor(sae, EditorConfig(form="raw"))
    report = alignment_report(test, editor)
    monkeypatch.setattr(alignment_chart, "JOINED", 7)
    figure = alignment_figure(report, pairs_in_plane(test, editor))
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    above, below = figure.subfigs
    assert [axes.get_title() for axes in above.axes] == ["plain: 20 pairs", "edited: 20 pairs"]
    assert [len(points.get_offsets()) for points in above.axes[0].collections] == [20, 20]
    assert len(above.axes[0].lines) == 7
    image, text = (points.get_offsets() for points in above.axes[0].collections)
    assert np.allclose(above.axes[0].lines[1].get_xydata(), [image[3], text[3]])
    titles = [axes.get_title() for axes in below.axes if axes.get_title()]
    assert titles == list(report["plain"])
    assert [bar.get_width() for bar in below.axes[1].patches] == pytest.approx([
        report[name]["RMG"] for name in ("plain", "edited", "shuffled images")
    ])  # fmt: skip
    alone = alignment_report(test), pairs_in_plane(test)
    assert len(alignment_figure(*alone).subfigs[0].axes) == 1
