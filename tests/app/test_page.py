"""The search page in a real browser: asked, opened, switched, by keyboard, on a phone, in the dark, and refused."""

from __future__ import annotations

import contextlib
import io
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright

from boresight.app import Access, Limits, Service, create_app
from boresight.app.server import listening
from boresight.data import make_scenes
from boresight.embeddings import embed
from boresight.encoders import Encoder
from boresight.evaluation.comparison_figures import Comparison, HeldOut
from boresight.evaluation.comparison_rows import PLAIN
from boresight.evaluation.verdict import Verdict
from boresight.search import SearchIndex

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no {CHROMIUM} to open the page in")
TEXT = "a red circle"
expect.set_options(timeout=15_000)
CONTRAST = """() => {  // texts whose contrast with what is behind them is below 4.5
  const numbers = (colour) => {
    const paper = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    paper.fillStyle = colour;
    paper.fillRect(0, 0, 1, 1);
    return [...paper.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (node) => {
    for (let each = node; each; each = each.parentElement) {
      const colour = numbers(getComputedStyle(each).backgroundColor);
      if (colour[3] > 250) return colour;
    }
    return [255, 255, 255];
  };
  const LEFT_OUT = "svg, .hidden, :disabled, .skip, .heated";
  const weak = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !node.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (node.closest(LEFT_OUT)) continue;
    const [a, b] = [light(numbers(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) weak.push(`${node.className} ${node.textContent.slice(0, 30)}`);
  }
  return weak;
}"""


@contextlib.contextmanager
def served(index: SearchIndex, access: Access | None = None, comparison: Comparison | None = None) -> Iterator[str]:
    """The address of the page of an index."""
    bound = listening("127.0.0.1", 0)
    service = Service(index, Limits(k=60, body_bytes=300_000, pixels=250_000), comparison)
    server = uvicorn.Server(uvicorn.Config(create_app(service, access), log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
    server.should_exit = True
    thread.join()
    service.close()


@pytest.fixture(scope="module")
def index(scenes_index: Path, encoder: Encoder) -> SearchIndex:
    return SearchIndex.open(scenes_index, encoder=encoder)


@pytest.fixture(scope="module")
def address(index: SearchIndex) -> Iterator[str]:
    with served(index) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page that asks no other host and reports no error; `param` are options of its context."""
    options = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"} | getattr(request, "param", {})
    context = browser.new_context(**options)
    page, errors, hosts = context.new_page(), [], set()
    page.set_default_timeout(15_000)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.on("request", lambda asked: hosts.add(urlsplit(asked.url).hostname))
    yield page
    context.close()
    assert [error for error in errors if not re.search(r"status of (401|422)", error)] == []
    assert hosts - {None, ""} == {"127.0.0.1"}


def settled(page: Page) -> None:
    """Wait for the answers."""
    expect(page.locator("#view-search[aria-busy]")).to_have_count(0)


def ask(page: Page, text: str) -> None:
    expect(page.locator("#start h1")).to_be_visible()
    page.locator("#text").fill(text)
    page.keyboard.press("Enter")
    settled(page)


def shown(page: Page) -> list[str]:
    return page.eval_on_selector_all("#results > li", "all => all.map(one => one.dataset.id)")


def test_search_open_and_switch_a_latent(page: Page, address: str, index: SearchIndex) -> None:
    page.goto(address)
    ask(page, TEXT)
    edited = index.search(TEXT, k=24)
    assert shown(page) == [one.id for one in edited]
    expect(page.locator("#count")).to_have_text("24 pictures of 60, in the edited order.")
    for card, one in zip(page.locator("#results .facts").all(), edited, strict=True):
        mark = card.locator(".mark [aria-hidden]")
        sign = "▲" if one.moved > 0 else "▼"
        assert mark.count() == bool(one.moved)
        if one.moved:
            assert mark.inner_text().startswith(f"{sign} {abs(one.moved)} · was {one.plain_rank}")
    assert page.locator("#results b").count() == 0  # an id that looks like markup stays words

    page.locator("#results button").nth(2).click()
    panel = page.locator("#panel")
    expect(panel.locator("[role=switch]").first).to_be_visible()
    amounts = panel.locator(".parts td:last-child").all_inner_texts()
    figures = [float(one.replace("−", "-")) for one in amounts]
    assert sum(figures[:-1]) == pytest.approx(figures[-1], abs=5e-4)
    assert figures[-1] == pytest.approx(edited[2].score, abs=1e-4)

    switch = panel.locator("[role=switch]").first
    latent = int(switch.get_attribute("id").removeprefix("latent-"))
    assert switch.get_attribute("aria-checked") == "true"
    switch.click()
    expect(page.locator("#count")).to_contain_text("with latents switched")
    after = index.search(TEXT, k=24, latents={latent: 0})
    assert shown(page) == [one.id for one in after]
    assert shown(page) != [one.id for one in edited]
    expect(switch).to_have_attribute("aria-checked", "false")
    assert f"latent={latent}%3A0" in page.url
    before = {one.id: one.rank for one in edited}
    for card, one in zip(page.locator("#results li").all(), after, strict=True):
        was = before.get(one.id)
        marked = card.locator(".mark [aria-hidden]").all_inner_texts()
        assert bool(marked) == (was != one.rank)
        if marked and was:
            assert f"was {was}" in marked[0]

    linked = page.context.new_page()
    linked.goto(page.url)
    expect(linked.locator("#panel [role=switch]").first).to_be_visible()
    assert shown(linked) == [one.id for one in after]
    linked.close()
    page.go_back()
    expect(panel).to_be_hidden()
    assert shown(page) == [one.id for one in edited]


def test_plain_order_filter_without_more_and_what_leads_on(page: Page, address: str, index: SearchIndex) -> None:
    page.goto(address)
    ask(page, TEXT)
    page.locator("#order").get_by_text("Plain order").click()
    expect(page.locator("#count")).to_contain_text("plain order")
    assert shown(page) == [one.id for one in index.search(TEXT, k=24, plain=True)]
    page.go_back()
    page.locator("#next").click()
    expect(page.locator("#results > li")).to_have_count(48)
    assert shown(page) == [one.id for one in index.search(TEXT, k=48)]

    page.locator("#without").fill("a blue star")
    page.locator("#where").fill("year > 2010")
    page.keyboard.press("Enter")
    found = index.search(TEXT, without="a blue star", where="year > 2010", k=24)
    expect(page.locator("#count")).to_contain_text(f"{len(found)} pictures of {found.matches} that the filter")
    assert shown(page) == [one.id for one in found]
    page.locator("#where").fill("year > 3000")
    page.keyboard.press("Enter")
    expect(page.locator("#count")).to_contain_text("lets no picture through")
    page.locator("#where").fill("colour == 'red'")
    page.keyboard.press("Enter")
    expect(page.locator("#error")).to_contain_text("The index has no column 'colour'")

    page.goto(f"{address}?q=a+red+circle")
    page.locator("#results button").nth(5).click()
    one = shown(page)[5]
    page.get_by_role("button", name="More like this").click()
    expect(page.locator("#chips")).to_contain_text(one)
    settled(page)
    assert shown(page) == [each.id for each in index.search(TEXT, like=[one], k=24)]


def test_pictures_dropped_and_refused(page: Page, address: str, index: SearchIndex) -> None:
    page.goto(address)
    data = io.BytesIO()
    index.image("scene-20").save(data, "PNG")
    page.evaluate(
        """bytes => {
          const carried = new DataTransfer();
          carried.items.add(new File([new Uint8Array(bytes)], "mine.png", { type: "image/png" }));
          for (const name of ["dragenter", "drop"])
            document.body.dispatchEvent(
              new DragEvent(name, { dataTransfer: carried, bubbles: true, cancelable: true }));
        }""",
        list(data.getvalue()),
    )
    expect(page.locator("#chips")).to_contain_text("mine.png")
    expect(page.locator("#count")).to_contain_text("24 pictures")
    assert shown(page)[0] == "scene-20"
    page.locator("#results button").first.click()
    expect(page.locator("#panel .parts tfoot")).to_contain_text("+1.0")
    page.keyboard.press("Escape")

    page.locator("#file").set_input_files({"name": "broken.png", "mimeType": "image/png", "buffer": b"no picture"})
    expect(page.locator("#error")).to_be_visible()
    assert page.locator("#error").inner_text().count(".") >= 1
    page.reload()
    expect(page.locator("#error")).to_contain_text("broken.png was not kept with this address")


@pytest.mark.parametrize(
    "page", [{"viewport": {"width": 390, "height": 844}, "has_touch": True, "color_scheme": "dark"}], indirect=True
)
def test_on_a_phone_in_the_dark(page: Page, address: str) -> None:
    def fits() -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate(CONTRAST) == []

    page.goto(address)
    ask(page, TEXT)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 21, 23)"
    page.locator("summary").click()
    fits()
    page.locator("#results button").first.tap()
    expect(page.locator("#panel .parts")).to_be_visible()
    assert page.evaluate("document.querySelector('#panel').scrollWidth") <= 390
    fits()
    page.get_by_role("button", name="Close").tap()
    page.get_by_role("tab", name="Collection").tap()
    expect(page.locator(".concept").first).to_be_visible()
    fits()


def test_keyboard_alone_and_light(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.locator("#start h1")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type(TEXT)
    page.keyboard.press("Enter")
    expect(page.locator("#results > li")).to_have_count(24)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    focused = page.evaluate("document.activeElement.closest('li').dataset.id")
    across = page.evaluate("getComputedStyle(document.querySelector('#results')).gridTemplateColumns.split(' ').length")
    assert focused == shown(page)[across + 1]
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.locator("#panel [role=switch]").first).to_be_visible()
    assert page.evaluate(CONTRAST) == []
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('role')") == "switch":
            break
    switch = page.evaluate("document.activeElement.id")
    page.keyboard.press("Space")
    expect(page.locator(f"#{switch}")).to_have_attribute("aria-checked", "false")
    assert page.evaluate("document.activeElement.id") == switch
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()
    assert page.evaluate("document.activeElement.closest('li')?.dataset.id") == focused
    for image in page.locator("img").all():
        assert image.get_attribute("alt") is not None
    page.locator("#theme").press("Enter")
    assert page.evaluate("document.documentElement.style.colorScheme") == "dark"
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 21, 23)"


def test_a_map_over_the_picture_and_the_collection(page: Page, address: str) -> None:
    page.goto(f"{address}?q=a+red+circle&open=scene-20")
    page.locator("#panel").get_by_text("M2IB").click()
    expect(page.locator(".overlay")).to_be_visible()
    assert page.locator(".heated span").all_inner_texts() == ["a", "red", "circle"]
    page.locator("#panel input[type=range]").fill("30")
    assert page.evaluate("document.querySelector('.overlay').style.opacity") == "0.3"
    page.keyboard.press("Escape")
    page.get_by_role("tab", name="Collection").click()
    points = page.locator(".point")
    expect(points.first).to_be_visible()
    points.first.press("Enter")
    name = points.first.get_attribute("aria-label").rsplit(", in ", 1)[0]
    expect(page.locator("#chosen h3")).to_have_text(name)


def test_a_bare_index_behind_a_token(page: Page, encoder: Encoder, tmp_path: Path) -> None:
    embeddings = embed(encoder, make_scenes(5, split="test"), workers=0, dtype="float32")
    bare = SearchIndex.create(tmp_path / "bare", embeddings, encoder=encoder)
    with served(bare, Access(token="open sesame")) as address:
        page.goto(address)
        expect(page.locator("#error")).to_contain_text("token")
        page.locator("#token").fill("open sesame")
        page.keyboard.press("Enter")
        expect(page.locator("#start h1")).to_be_visible()
        expect(page.locator("#tab-collection")).to_be_hidden()
        ask(page, TEXT)
        expect(page.locator("#results .missing")).to_have_count(5)
        assert shown(page) == [one.id for one in bare.search(TEXT)]
        expect(page.locator("#order")).to_be_hidden()
        page.locator("#results button").first.click()
        expect(page.locator("#panel .parts")).to_contain_text("cosine with “a red circle”")
        expect(page.locator("#panel [role=switch]")).to_have_count(0)


@pytest.mark.parametrize("word", ["helps", "level", "hurts"])
def test_the_verdict_stands_above_its_table(page: Page, index: SearchIndex, word: str) -> None:
    said = Verdict(word, "plain", 400.0, 390.0, 10.0, 5.0, 15.0, f"The edit {word}. " * 9, ("Few images.",), {})
    figures = {"unseen": {PLAIN.name: {"-": {f"{way} R@{k}": 50.0 for way in ("T2I", "I2T") for k in (1, 5, 10)}}}}
    comparison = Comparison([PLAIN], [HeldOut("unseen", 12, 24)], [0], figures, verdicts={"unseen": said})
    with served(index, comparison=comparison) as address:
        page.goto(address)
        page.get_by_role("tab", name="Verdict").click()
        sentence, table = page.locator(".verdict"), page.locator(".figures")
        expect(sentence).to_contain_text(f"The edit {word}.")
        above, below = sentence.bounding_box(), table.bounding_box()
        assert above is not None
        assert below is not None
        lines = page.evaluate("(one) => one.scrollHeight - one.clientHeight", sentence.element_handle())
        assert lines <= 1  # nothing hangs out of it
        assert above["y"] + above["height"] <= below["y"]
