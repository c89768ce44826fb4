// One result, opened: the picture, what of it and of the words matched, why it has its score, and what can be switched.
import * as api from "./api.js";
import { $, el, fill, originalOf, ordinal, picture } from "./dom.js";
import { condition, filterable } from "./form.js";
import { heat } from "./heat.js";
import { keyOf, queryOf } from "./state.js";
import { latents, memory, parts } from "./why.js";

const panel = $("panel");
const wide = matchMedia("(min-width: 62rem)");
let open = { id: "", key: "", base: "" };
let running = null;
let parted = null; // elements of the open panel that change while it is open

/** Open a result, or bring the open one up to date after a latent was switched. */
export async function show(given) {
  const { id, state } = given;
  const base = JSON.stringify([id, keyOf(state, true), state.plain]);
  if (open.base !== base) build(given);
  const key = JSON.stringify([id, keyOf(state)]);
  if (open.key === key) return;
  open = { id, key, base };
  place(given);
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  try {
    const [reasons, tops] = await Promise.all([explained(given, signal), topsOf(given.info)]);
    parted.reasons ??= reasons; // of before a switch, so that the list does not jump
    parted.tops ??= tops;
    why(given, reasons);
  } catch (error) {
    if (error.name !== "AbortError") fill(parted.why, el("p", { class: "error", role: "alert" }, error.message));
  }
}

export function close() {
  running?.abort();
  open = { id: "", key: "", base: "" };
  document.body.classList.remove("beside");
  if (panel.open) panel.close();
}

let closing = () => {};
/** What is to be done where the reader closes the panel. */
export const whenClosed = (done) => (closing = done);
panel.addEventListener("cancel", (event) => {
  event.preventDefault();
  closing();
});

function explained({ id, state, files }, signal) {
  const query = { ...queryOf(state, { k: 1 }), id };
  delete query.k;
  delete query.offset;
  return api.explain(query, files, signal);
}

let tops = null;
/** latent -> ids of the pictures that have most of it, of the most frequent latents; read once. */
function topsOf(info) {
  if (!info.editor?.latents || !info.pictures) return new Map();
  tops ??= api.get("api/concepts?k=200").then(({ concepts }) => new Map(concepts.map((one) => [one.latent, one.top])));
  return tops.catch(() => ((tops = null), new Map()));
}

function build(given) {
  const { id, result, state, info, ask } = given;
  const also = (kind, other) => () =>
    ask({
      [kind]: [...state[kind].filter((one) => one !== id), id],
      [other]: state[other].filter((one) => one !== id),
    });
  parted = {
    steps: el("span", { class: "steps" }),
    place: el("p", { class: "place", "aria-live": "polite" }),
    why: el("div", { class: "why" }, el("p", { class: "soft" }, "Reading why …")),
    captions: el("div", {}),
    facts: el("div", {}),
    reasons: null,
    tops: null,
  };
  const title = el("h2", { id: "panel-title", tabindex: "-1" });
  const shot = picture(info.pictures && originalOf(id), result?.captions[0] ?? id, id);
  fill(
    panel,
    el(
      "header",
      {},
      parted.steps,
      parted.place,
      el("button", { type: "button", class: "icon close", "aria-label": "Close", onclick: () => closing() }, "×"),
    ),
    heat(shot, given),
    title,
    parted.captions,
    el(
      "div",
      { class: "actions" },
      el("button", { type: "button", onclick: also("like", "unlike") }, "More like this"),
      el("button", { type: "button", onclick: also("unlike", "like") }, "Without this"),
    ),
    parted.why,
    parted.facts,
  );
  const describe = (record) => {
    title.textContent = record.captions[0] ?? id;
    fill(
      parted.captions,
      record.captions.slice(1).map((one) => el("p", { class: "caption" }, one)),
    );
    fill(parted.facts, facts(record, state, ask));
  };
  describe(result ?? { id, captions: [], columns: {} });
  if (!result) api.get(`api/images?id=${encodeURIComponent(id)}`).then(describe, () => null); // why() says what is wrong
  document.body.classList.add("beside");
  if (!panel.open) {
    if (wide.matches) panel.show();
    else panel.showModal();
  }
  panel.scrollTop = 0;
  title.focus({ preventScroll: true });
}

function place({ id, result, state, base, answers, go }) {
  const at = answers.results.findIndex((one) => one.id === id);
  const step = (by, words, sign) => {
    const other = answers.results[at + by];
    return el(
      "button",
      {
        type: "button",
        class: "icon",
        "aria-label": words,
        disabled: at < 0 || !other,
        onclick: () => go({ open: other.id }, { replace: true }),
      },
      sign,
    );
  };
  fill(parted.steps, step(-1, "The result before", "‹"), step(1, "The next result", "›"));
  const was = base.ranks.get(id);
  const switched = Object.keys(state.latents).length > 0;
  const before = switched ? was : result?.plain_rank;
  const where = result ? ordinal(result.rank) : "Not among the shown";
  const moved = before && before !== result?.rank;
  fill(
    parted.place,
    el("b", {}, where),
    result ? ` with ${result.score.toFixed(4)}` : "",
    moved && !state.plain
      ? el(
          "span",
          { class: "soft" },
          switched ? `, ${ordinal(before)} before the switch` : `, ${ordinal(before)} by the cosine`,
        )
      : "",
  );
}

function why(given, reasons) {
  const { state, go } = given;
  const first = parted.reasons.terms.find((term) => term.explanation && term.weight > 0)?.explanation;
  const has = first && first.latents_kept.length + first.latents_dropped.length > 0;
  const flip = (latents) => go({ latents }, { replace: true });
  const focused = document.activeElement?.id;
  const scrolled = panel.scrollTop;
  fill(parted.why, has && latents(first, reasons, state, parted.tops, flip), parts(reasons), first && memory(first));
  panel.scrollTop = scrolled;
  if (focused && parted.why.querySelector(`#${CSS.escape(focused)}`)) $(focused).focus({ preventScroll: true });
}

function facts(record, state, ask) {
  const columns = Object.entries({ id: record.id, split: record.split, ...record.columns }).filter(
    ([, value]) => value !== null && value !== undefined && value !== "",
  );
  const also = (text) =>
    ask({ where: !state.where ? text : state.where.includes(text) ? state.where : `(${state.where}) and ${text}` });
  return el(
    "section",
    {},
    el("h3", {}, "About this picture"),
    el(
      "dl",
      { class: "columns" },
      columns.map(([name, value]) => [
        el("dt", {}, name),
        el(
          "dd",
          {},
          el("span", {}, shown(value)),
          filterable(name, value) && name !== "id" && String(value).length < 80
            ? el(
                "button",
                {
                  type: "button",
                  "aria-label": `Only where ${name} is ${value}`,
                  onclick: () => also(condition(name, value)),
                },
                "only these",
              )
            : null,
        ),
      ]),
    ),
  );
}

const shown = (value) => {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > 300 ? `${text.slice(0, 300)} …` : text;
};
