"""The report page: what it says, that it stands alone, that it renders."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from decimal import Decimal
from html import unescape
from html.parser import HTMLParser

import pytest
from datasets import Dataset
from PIL import Image

from boresight.data import Collection
from boresight.editing.explanation import Explanation, LatentEffect, RememberedPair
from boresight.errors import ArtefactError, InputError
from boresight.evaluation.comparison_figures import Comparison, HeldOut
from boresight.evaluation.comparison_rows import Row
from boresight.evaluation.examples import Example, LatentCard, RankedImage
from boresight.evaluation.verdict import Verdict
from boresight.reports.charts import dot_figure
from boresight.reports.comparison_page import write_report
from boresight.tables import Spread

EVIL = "<script>alert('a & b')</script> a red \"kite\""


TITLES = ("latents kept, by their part of the score", "latents dropped, by what that changed of the score")
MEMORIES = ("memory of images: pairs whose captions moved the image", "memory: pairs whose pictures moved the caption")
LATENTS = (
    LatentEffect(4, "", 1.0, 0.25, -0.00006, -0.2, 0.0),
    LatentEffect(3, "<b>hair</b>", 2.0, 0.9, 0.1, 0.01, 0.456),
    *(LatentEffect(10 + number, "", 0.1, 0.8, 0.01, 0.0) for number in range(5)),
)
"""Parts of them are 0.15 and -0.00006."""
GRID = {
    "latents kept": {"caption": 0.13334, "memory": 0.03335, "gate": -0.01669},
    "latents dropped, what is left": {"caption": -0.00004, "memory": -0.00004, "gate": 0.00002},
    "memory of images": {"caption": 0.02004, "memory": 0.00004, "gate": 0.00004},
    "rest of the image": {"caption": 0.20004, "memory": 0.10004, "gate": 0.00004},
}
"""Rounded one by one to four digits these add up to other figures than their sums."""
PAIRS = tuple(
    RememberedPair(row, 0.2, 0.006 - 0.001 * row, f"r{row}", ("a <i>mane</i>", "another") if row else ())
    for row in range(6)
)
HUBNESS = {"hubness of the image": 0.11114, "hubness of the caption": 0.05554}
SCORE = sum(sum(row.values()) for row in GRID.values()) - sum(HUBNESS.values())
EXPLAINED = Explanation(0.2, SCORE, GRID, HUBNESS, 1.0, LATENTS, PAIRS, PAIRS[:2])
KEPT_AND_LEFT = ("latents kept", "latents dropped, what is left")
TOLD = Explanation(
    0.2,
    0.06666,
    {name: {"caption": 0.02222} for name in (*KEPT_AND_LEFT, "rest of the image")},
    {},
    1.0,
    (LatentEffect(3, "hair", 2.0, 0.9, 0.02222, 0.0), LatentEffect(8, "", 1.0, 0.1, 0.02222, 0.12345)),
)


def one(value, kinds=()):
    metrics = {"R@1": value, "R@5": value + 10, "R@10": value + 20, "median rank": 3.0, "MRR": value / 50}
    result = {
        f"{side} {name}": number + up for side, up in (("T2I", 0), ("I2T", 1)) for name, number in metrics.items()
    }
    return result | ({"kinds": {kind: one(value + i) for i, kind in enumerate(kinds)}} if kinds else {})


@pytest.fixture
def comparison():
    kinds = ("short", "long")
    rows = [
        Row("plain", "baseline", "as it is"),
        Row("fine-tuned", "opponent", "no mask"),
        Row("edited", "ours", "with a mask"),
        Row("chance", "control", "knows nothing"),
    ]
    figures = {
        "unseen": {
            "plain": {"-": one(20.3, kinds)},
            "fine-tuned": {"0": one(24.1, kinds), "1": one(25.1, kinds)},
            "edited": {"0": one(17.0, kinds), "1": one(18.0, kinds)},
            "chance": {"-": one(0.4, kinds)},
        }
    }
    held = [HeldOut("unseen", 50, 120, {"short": 70, "long": 50})]
    said = Verdict("hurts", "fine-tuned", 165.0, 207.6, -42.6, -50.2, -33.0, "The edit hurts <here>.")
    return Comparison(rows, held, [0, 1], figures, {"0": {"l0": 31.5}}, {"k": "32"}, {"unseen": said})


def painted(image_id):
    return Image.new("RGB", (400, 300), (10, 20 * len(image_id) % 255, 90))


@pytest.fixture
def page(tmp_path, comparison):
    def places(true_rank):
        shown = [RankedImage(f"p{rank}", rank, rank == true_rank) for rank in range(1, 6)]
        return shown if true_rank <= 5 else [*shown, RankedImage("far", true_rank, True)]

    ranks, rankings = {"plain": 41, "edited": 2}, {"plain": places(41), "edited": places(2)}
    example = Example(0, "largest gain", EVIL, "p2", ranks, rankings, "long", EXPLAINED, TOLD)
    cards = [
        LatentCard(3, "<i>hair</i>", 0.25, ["p1", "p2"], 0.523, "captions"),
        LatentCard(4, "latent 4", 0.5, ["p1"], None, "captions"),
        LatentCard(5, "red", 0.5, ["p1"], 0.7, "vocabulary"),
    ]
    file = tmp_path / "report.html"
    write_report(file, comparison, [example], cards, pictures=painted)
    return file


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.images, self.tags = [], [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.links += [values[name] for name in ("src", "href", "srcset", "data", "action") if name in values]
        if tag == "img":
            self.images.append(values)


def parsed(page):
    links = Links()
    links.feed(page.read_text(encoding="utf-8"))
    return links


def test_holds_the_figures_of_the_table(page):
    text = page.read_text(encoding="utf-8")
    for words in ("20.3", "24.6", "± 0.7", "17.5", "50 images", "120 captions", "31.5"):
        assert words in text
    assert re.search(r'<b class="loss">−42\.6</b> over “fine-tuned” <span class="soft">95 %: −50\.2 to −33\.0<', text)
    assert "The edit hurts &lt;here&gt;." in text
    assert re.search(r'<b>41</b> → <b class="gain">2</b>', text)
    assert re.search(r"<td>Sum of six recalls</td><td>184\.8</td><td>210\.6</td><td>168\.0</td>", text)
    assert re.search(r"caption to image \(T2I\), R@1</td><td>20\.3</td><td>24\.6</td><td>17\.5</td>", text)
    assert re.findall(r'<i class="dot (\w+)"></i>([^<]*)</span>', text)[:3] == [
        ("baseline", "plain"), ("opponent", "fine-tuned"), ("ours", "edited"),
    ]  # fmt: skip


def test_the_headline_is_in_colour_only_where_nothing_warns(tmp_path, comparison):
    said = Verdict("helps", "plain", 165.0, 150.0, 15.0, 9.0, 21.0, "The edit helps.")
    for warnings, style in (((), "gain"), (("Only 18 images.",), "even")):
        verdicts = {"unseen": replace(said, warnings=warnings)}
        write_report(tmp_path / "report.html", replace(comparison, verdicts=verdicts))
        text = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert f'<b class="{style}">+15.0</b> over “plain”' in text
        assert ("Only 18 images." in text) == bool(warnings)
        assert re.search(r"<td>Sum of six recalls</td><td>[\d.]+</td><td>[\d.]+</td></tr>", text)
    with pytest.raises(InputError, match="compare with the row EDITED"):
        write_report(tmp_path / "report.html", replace(comparison, verdicts={}))


def test_the_best_value_is_marked_among_rivals_and_not_among_controls(page):
    marked = re.findall(r'class="(?:start )?best"><b>([\d.]+)</b>', page.read_text(encoding="utf-8"))
    assert marked[:4] == ["24.6", "34.6", "44.6", "0.492"]


def test_stands_alone(page):
    links = parsed(page)
    assert links.links
    assert all(link.startswith("data:image/webp;base64,") for link in links.links)
    assert "script" not in links.tags
    assert not re.search(r"https?://|url\(|@import", page.read_text(encoding="utf-8"))


def test_pictures_are_small_and_described(page):
    images = parsed(page).images
    assert len(images) == 6 + 5 + 4 + (5 + 2)
    assert all(image["alt"] for image in images)
    assert {(image["width"], image["height"]) for image in images} == {("160", "120")}


def test_user_text_is_escaped(page):
    text = page.read_text(encoding="utf-8")
    assert EVIL not in text
    assert "&lt;script&gt;alert(&#39;a &amp; b&#39;)&lt;/script&gt; a red &#34;kite&#34;" in text
    assert "<b>hair" not in text
    assert "<i>hair" not in text
    assert "<i>mane" not in text
    assert "“a &lt;i&gt;mane&lt;/i&gt;”" in text


def amounts(cells):
    return [Decimal(cell.replace("−", "-")) for cell in cells if cell]


def table_of(text):
    """The table of parts of the first example, read back from the page."""
    table = re.search(r'<table class="parts">(.*?)</table>', text, re.DOTALL)[1]
    edited, plain = re.search(r"<caption>edited score <b>([^<]*)</b>, plain ([^<]*)</caption>", table).groups()
    lines = re.findall(r'<tr><th scope="row">(.*?)</tr>', table, re.DOTALL)
    rows = {unescape(line.split("</th>")[0]): re.findall(r"<td[^>]*>([^<]*)</td>", line) for line in lines}
    columns = re.findall(r'<th scope="col">([^<]*)</th>', table)
    return {"edited": edited, "plain": plain, "columns": columns, "totals": rows.pop("all"), "rows": {
        name: [cell.replace("+", "") for cell in cells] for name, cells in rows.items()
    }}  # fmt: skip


def lists_of(text):
    """Title of a list -> (name, figures) of each of its lines."""
    lists = {}
    for part in text.split('<div class="latents')[1:]:
        title, lines = re.search(r"<h4>([^<]*)</h4>", part)[1], part.split("<li")[1:]
        shown = [re.search(r'class="(?:name|words)">(.*?)</span><span class="weight">([^<]*)</span>', line, re.DOTALL)
                 for line in lines]  # fmt: skip
        lists.setdefault(title, [each.groups() for each in shown])
    return lists


def score_of(figures):
    return Decimal(figures.rsplit("score ", 1)[1].replace("−", "-"))


def check_sums(text):
    """What is shown adds up to the score that is shown, in every direction, to the last digit."""
    table, lists = table_of(text), lists_of(text)
    (edited,), parts = amounts([table["edited"]]), {name: amounts(cells) for name, cells in table["rows"].items()}
    assert all(sum(cells[:-1]) == cells[-1] for cells in parts.values() if len(cells) > 1)
    assert sum(cells[-1] for cells in parts.values()) == edited
    *totals, score = amounts(table["totals"])
    whole = [cells for cells in parts.values() if len(cells) > 1]
    assert totals == [sum(column) for column in zip(*whole, strict=True)][:-1]
    assert score == edited
    assert sum(score_of(figures) for _, figures in lists[TITLES[0]]) == parts["latents kept"][-1]
    assert sum(score_of(figures) for _, figures in lists[MEMORIES[0]]) == parts["memory of images"][-1]
    column = table["columns"].index("memory")
    assert sum(score_of(figures) for _, figures in lists[MEMORIES[1]]) == totals[column]


def test_the_parts_add_up_to_the_score_as_they_are_shown(page):
    text = page.read_text(encoding="utf-8")
    check_sums(text)
    table = table_of(text)
    assert (table["edited"], table["plain"]) == (f"+{SCORE:.4f}", "+0.2000")
    assert list(table["rows"]) == [*GRID, *HUBNESS]
    for name, row in GRID.items():
        *cells, _ = map(float, amounts(table["rows"][name]))
        assert cells == pytest.approx(list(row.values()), abs=2e-4)
    assert float(amounts(table["rows"]["hubness of the image"])[0]) == pytest.approx(-0.11114, abs=1e-4)


def test_latents_are_drawn_by_what_is_kept_and_dropped_of_them_in_the_order_of_their_effect(page):
    text = page.read_text(encoding="utf-8")
    bars = r'class="kept" style="width:([\d.]+)%"></i><i class="gone" style="width:([\d.]+)%"'
    few = [(str(4.0), str(1.0))] * 4
    assert re.findall(bars, text)[:6] == [("90.0", "10.0"), *few, ("12.5", "37.5")]
    kept, dropped = (lists_of(text)[title] for title in TITLES)
    assert kept[0] == ("&lt;b&gt;hair&lt;/b&gt; <small>0.46</small>", "90% kept, score +0.1000")
    assert kept[1:] == [(f"latent {10 + number}", "80% kept, score +0.0100") for number in range(4)] + [
        ("all others", "score +0.0100")
    ]
    assert dropped == [("latent 4", "75% dropped, score −0.2000")]


def test_the_form_that_shows_stands_beside_the_one_that_scores(page, tmp_path, comparison):
    text = page.read_text(encoding="utf-8").split("The form that shows: what the caption leaves out is dropped</h4>")
    assert len(text) == 2
    table, lists = table_of(text[1]), lists_of(text[1])
    assert table["edited"] == "+0.0667"
    assert sum(float(cells[-1]) for cells in table["rows"].values()) == pytest.approx(0.0667)
    assert lists[TITLES[0]] == [("hair", f"90% kept, score +{table['rows']['latents kept'][-1]}")]  # no others
    assert lists[TITLES[1]] == [("latent 8", "90% dropped, score +0.1235")]
    example = Example(0, "r", "a kite", "p1", {"plain": 1, "edited": 1}, {"plain": [], "edited": []}, "", EXPLAINED)
    write_report(tmp_path / "without.html", comparison, [example])
    assert "The form that shows" not in (tmp_path / "without.html").read_text()


def test_remembered_pairs_are_shown_with_their_words_and_pictures(page, tmp_path, comparison):
    text = page.read_text(encoding="utf-8")
    of_image, of_caption = (lists_of(text)[title] for title in MEMORIES)
    assert of_image[0] == ("r0", "weight 0.20, score +0.0060")  # whose words are not known
    assert of_image[1] == ("“a &lt;i&gt;mane&lt;/i&gt;”", "weight 0.20, score +0.0050")
    assert [name for name, _ in of_image][-1] == "all others, less the room they take"
    assert (len(of_image), len(of_caption)) == (5 + 1, 2 + 1)
    assert 'alt="remembered image r0"' in text

    def some(image_id):
        if image_id.startswith("r"):
            raise KeyError(image_id)
        return painted(image_id)

    example = Example(0, "r", "a kite", "p1", {"plain": 1, "edited": 1}, {"plain": [], "edited": []}, "", EXPLAINED)
    write_report(tmp_path / "some.html", comparison, [example], pictures=some)
    assert '<span class="missing">r0</span>' in (tmp_path / "some.html").read_text()


def test_cards_say_how_sure_a_name_is(page):
    cards = re.findall(r"<h4>([^<]*)</h4><p>([^<]*)</p>", page.read_text(encoding="utf-8"))
    assert cards == [
        ("&lt;i&gt;hair&lt;/i&gt;", "latent 3 · active in 25.0% of images · name sure to 0.52"),
        ("latent 4", "latent 4 · active in 50.0% of images"),
        ("red", "latent 5 · active in 50.0% of images · name of cosine 0.70, which nothing checked"),
    ]


def test_without_pictures_the_ids_are_shown(tmp_path, comparison):
    bare = Explanation(0.2, 0.2, {"rest of the image": {"caption": 0.2}}, {}, 1.0, ())
    first = [RankedImage("p1", 1, True)]
    ranks, rankings = {"plain": 1, "edited": 1}, {"plain": first, "edited": first}
    example = Example(0, "drawn at random", "a kite", "p1", ranks, rankings, explanation=bare)
    write_report(tmp_path / "report.html", comparison, [example])
    text = (tmp_path / "report.html").read_text()
    assert '<span class="missing">p1</span>' in text
    assert table_of(text)["rows"] == {"rest of the image": ["0.2000", "0.2000"]}
    assert not any(title in text for title in (*TITLES, *MEMORIES))
    assert "Latents by name" not in text


def test_unwritable_places_and_unknown_images_are_refused_in_a_sentence(tmp_path, comparison):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match=r"Cannot write .*report.html \(File exists\)"):
        write_report(tmp_path / "file" / "report.html", comparison)
    empty = Collection(
        Dataset.from_dict({"id": ["other"], "image": [None], "captions": [[]], "split": ["all"]}), "kites"
    )
    with pytest.raises(InputError, match="The collection kites has no image 'p1'"):
        write_report(tmp_path / "r.html", comparison, [], [LatentCard(1, "hair", 0.1, ["p1"])], pictures=empty)
    assert not (tmp_path / "r.html").exists()


def test_figures_place_values_on_a_round_axis():
    chart = dot_figure(
        "Recall", [("a", [("a", "ours", Spread(12.0, 1.0))]), ("b", [("b", "baseline", Spread(27.0, None))])], 12.0
    )
    labels = [float(label) for _, label in chart.ticks]
    assert labels[0] <= 11 <= 27 <= labels[-1]
    low, high = labels[0], labels[-1]
    dot = chart.tracks[0][1][0]
    assert dot.at == pytest.approx(100 * (12 - low) / (high - low)) == chart.reference
    assert dot.low == pytest.approx(100 * (11 - low) / (high - low))
    assert chart.tracks[1][1][0].low == chart.tracks[1][1][0].high
    assert chart.description == "Recall. a: 12.0 ± 1.0; b: 27.0."


@pytest.mark.parametrize("digits", [1, 2])
@pytest.mark.parametrize("deviation", [None, 0.0, 0.0004])
@pytest.mark.parametrize("value", [0.0, 0.04, 3.21, 55.5, 76.43, 100.0])
def test_figures_of_equal_values_still_have_an_axis(value, deviation, digits):
    """Of one plain run, say: no tick has more digits than the values are shown with."""
    chart = dot_figure("Recall", [("a", [("a", "ours", Spread(value, deviation))])], digits=digits)
    assert all(len(label.partition(".")[2]) <= digits for _, label in chart.ticks)
    assert 3 <= len(chart.ticks) <= 7
    places = [place for place, _ in chart.ticks]
    assert places == sorted(set(places))
    assert len({label for _, label in chart.ticks}) == len(chart.ticks)
    assert 0 <= chart.tracks[0][1][0].at <= 100


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine to render the page")
def test_renders_in_a_browser(page, tmp_path):
    """A probe appended to a copy of the page counts broken pictures and what sticks out of a phone's width."""
    probe = """<script>addEventListener('load', () => {
      const broken = [...document.images].filter(image => !image.naturalWidth).length;
      const wide = document.documentElement.scrollWidth > innerWidth;
      document.body.setAttribute('data-probe', `${document.images.length} pictures, ${broken} broken, wide ${wide}`);
    })</script>"""
    copy = tmp_path / "probe.html"
    copy.write_text(page.read_text(encoding="utf-8") + probe, encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    command = [CHROMIUM, *flags.split(), "--disable-component-update", "--disable-sync", "--enable-logging=stderr"]
    result = subprocess.run(
        [*command, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=500,900", "--dump-dom", copy.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert 'data-probe="22 pictures, 0 broken, wide false"' in result.stdout
    assert "CONSOLE" not in result.stderr
    check_sums(result.stdout)
