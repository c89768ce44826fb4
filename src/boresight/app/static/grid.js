// The results as a grid of cards that keep their place in the document, so that a new order can be seen to move.
import { $, calm, el, fill, ordinal, picture } from "./dom.js";

const cards = new Map(); // id -> the <li> that shows it
const list = $("results");

/** Show `results` in this order. markOf: result -> {moved, text, said} or null; open: id -> what a click does. */
export function show(results, markOf, open) {
  const before = new Map([...cards].map(([id, card]) => [id, card.getBoundingClientRect()]));
  const focused = document.activeElement?.closest?.("#results li")?.dataset.id;
  const wanted = new Set(results.map((one) => one.id));
  for (const [id, card] of cards) {
    if (!wanted.has(id)) {
      card.remove();
      cards.delete(id);
    }
  }
  for (const result of results) {
    const card = cards.get(result.id) ?? made(result, open);
    cards.set(result.id, card);
    refresh(card, result, markOf(result));
    list.append(card); // one that is there already moves
  }
  for (const card of cards.values()) card.firstChild.tabIndex = -1;
  const first = cards.get(focused) ?? list.firstElementChild;
  if (first) first.firstChild.tabIndex = 0;
  if (focused && cards.has(focused)) cards.get(focused).firstChild.focus({ preventScroll: true });
  if (before.size && !calm()) move(before);
}

function made(result, open) {
  const image = el("span", { class: "shot" }, picture(result.thumbnail, result.captions[0] ?? result.id, result.id));
  const button = el(
    "button",
    { type: "button", onclick: () => open(result.id) },
    image,
    el("span", { class: "facts" }),
  );
  const card = el("li", {}, button);
  card.dataset.id = result.id;
  return card;
}

function refresh(card, result, mark) {
  const [facts] = card.getElementsByClassName("facts");
  fill(
    facts,
    el("span", { class: "rank" }, String(result.rank)),
    (mark &&
      el(
        "span",
        { class: `mark ${mark.moved > 0 ? "rose" : mark.moved < 0 ? "fell" : ""}` },
        el("span", { "aria-hidden": "true" }, mark.text),
        el("span", { class: "hidden" }, mark.said),
      )) ||
      "",
    el("span", { class: "score", title: "Score" }, result.score.toFixed(3)),
    el("span", { class: "words" }, result.captions[0] ?? result.id),
  );
}

function move(before) {
  for (const [id, card] of cards) {
    const from = before.get(id);
    const to = card.getBoundingClientRect();
    if (!from) card.animate([{ opacity: 0 }, { opacity: 1 }], { duration: 250, easing: "ease-out" });
    else if (from.x !== to.x || from.y !== to.y) {
      const start = `translate(${from.x - to.x}px, ${from.y - to.y}px)`;
      card.animate([{ transform: start }, { transform: "none" }], {
        duration: 350,
        easing: "cubic-bezier(.2,.7,.2,1)",
      });
    }
  }
}

/** What is said of a result that stands elsewhere than `was`, its place in the order `by`. */
export function markFor(rank, was, by) {
  if (was === null) return null;
  const moved = was - rank;
  if (moved === 0) return null;
  const [sign, verb] = moved > 0 ? ["▲", "rose"] : ["▼", "fell"];
  const far = Math.abs(moved).toLocaleString("en");
  return { moved, text: `${sign} ${far} · was ${ordinal(was)}`, said: `${verb} ${far}, was ${ordinal(was)} ${by}` };
}

/** Mark the card that is open. */
export function current(id) {
  for (const [own, card] of cards) {
    if (own === id) card.firstChild.setAttribute("aria-current", "true");
    else card.firstChild.removeAttribute("aria-current");
  }
}

export function focusOn(id) {
  const card = cards.get(id) ?? list.firstElementChild;
  card?.firstChild.focus();
}

// Arrows walk through the grid; only one card is in the Tab order.
list.addEventListener("keydown", (event) => {
  const all = [...list.children];
  const at = all.indexOf(event.target.closest("li"));
  if (at < 0) return;
  const across = all.filter((card) => card.offsetTop === all[0].offsetTop).length;
  const steps = {
    ArrowRight: 1,
    ArrowLeft: -1,
    ArrowDown: across,
    ArrowUp: -across,
    Home: -at,
    End: all.length - 1 - at,
  };
  if (!(event.key in steps)) return;
  event.preventDefault();
  const next = all[at + steps[event.key]];
  if (!next) return;
  all[at].firstChild.tabIndex = -1;
  next.firstChild.tabIndex = 0;
  next.firstChild.focus();
});
