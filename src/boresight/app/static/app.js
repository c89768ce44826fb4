// The page: what the address says is searched for and shown; whatever is done changes the address.
import * as api from "./api.js";
import { $, el } from "./dom.js";
import { chips, filterHelp, start } from "./form.js";
import * as grid from "./grid.js";
import * as panel from "./panel.js";
import { PAGE, asks, keyOf, queryOf, read, written } from "./state.js";

const pictures = new Map(); // name in the address -> file, as long as the page is open
const views = { search: null, collection: "./collection.js", verdict: "./verdict.js" };
let info = { name: "", columns: [], methods: [], edited: false, limits: {} };
let words = []; // to begin with
const values = new Map(); // column -> the values that answers showed
let state = read();
let answers = { key: "", results: [] };
let base = { key: "", ranks: new Map(), shown: 0 }; // the edited order with no latent switched
let running = null;
let ready = false;

/** Change the search. Each change is a step back for the back button, unless it replaces. */
export function go(changes, { replace = false } = {}) {
  state = { ...state, ...changes };
  history[replace ? "replaceState" : "pushState"](null, "", written(state));
  return shown();
}

/** A new search: what belonged to the one before is let go. */
const ask = (changes) => go({ n: PAGE, open: "", latents: {}, tab: "search", ...changes });

async function shown() {
  for (const name of Object.keys(views)) {
    $(`view-${name}`).hidden = name !== state.tab;
    $(`tab-${name}`).setAttribute("aria-selected", name === state.tab);
    $(`tab-${name}`).tabIndex = name === state.tab ? 0 : -1;
  }
  document.title = [state.q, info.name, "boresight"].filter(Boolean).join(" · ");
  for (const name of ["without", "where"]) $(name).value = state[name];
  if (state.q || ready) $("text").value = state.q; // words typed while the page was loading stay
  for (const one of document.getElementsByName("order")) one.checked = (one.value === "plain") === state.plain;
  chips(state, pictures, ask);
  if (state.tab !== "search") {
    panel.close();
    const view = await import(views[state.tab]);
    return view.show($(`view-${state.tab}`), { state, info, ask, go });
  }
  await searched();
  if (state.open && answers.key === keyOf(state)) {
    const result = answers.results.find((one) => one.id === state.open);
    await panel.show({ id: state.open, result, state, info, answers, base, files: files(), go, ask });
  } else panel.close();
  grid.current(state.open);
}

const files = () => (pictures.has(state.picture) ? [pictures.get(state.picture)] : []);

async function searched() {
  const key = keyOf(state);
  if (key === answers.key && answers.n === state.n) return;
  running?.abort();
  if (!asks(state)) return nothing();
  running = new AbortController();
  const { signal } = running;
  $("view-search").setAttribute("aria-busy", "true");
  try {
    if (state.picture && !pictures.has(state.picture))
      throw new Error(`The picture ${state.picture} was not kept with this address; drop it here again.`);
    const more = key === answers.key && state.n > answers.n;
    const from = more ? answers.results.length : 0;
    const results = more ? [...answers.results] : [];
    let got;
    do {
      // no more at once than the service gives
      const k = Math.min(state.n - results.length, info.limits.k);
      got = await api.search(queryOf(state, { k, offset: results.length }), files(), signal);
      results.push(...got.results);
    } while (got.results.length && results.length < Math.min(state.n, got.matches));
    await compared(results, signal);
    answers = { ...got, key, results, n: state.n };
    $("error").hidden = true;
    learn(results);
    paint();
    if (more) grid.focusOn(results[from]?.id);
  } catch (error) {
    if (error.name === "AbortError") return;
    answers = { key: "", results: [], n: 0 };
    refused(error.message);
  } finally {
    if (!signal.aborted) $("view-search").removeAttribute("aria-busy");
  }
}

/** Know where the answers stood in the edited order with no latent switched, which is what they are marked against. */
async function compared(results, signal) {
  const key = keyOf(state, true);
  if (!state.plain && !Object.keys(state.latents).length)
    base = { key, ranks: new Map(results.map((one) => [one.id, one.rank])), shown: results.length };
  else if (info.edited && base.key !== key) {
    const k = Math.min(Math.max(100, state.n), info.limits.k);
    const other = await api.search(
      { ...queryOf(state, { latents: {}, plain: false, k }), ranks: false },
      files(),
      signal,
    );
    base = { key, ranks: new Map(other.results.map((one) => [one.id, one.rank])), shown: other.results.length };
  }
}

function paint() {
  const switched = Object.keys(state.latents).length > 0;
  grid.show(
    answers.results,
    (one) => markOf(one, switched),
    (id) => go({ open: id }),
  );
  const { matches, results, edited, exact } = answers;
  const filtered = state.where
    ? ` of ${matches.toLocaleString("en")} that the filter lets through`
    : ` of ${matches.toLocaleString("en")}`;
  const order = switched
    ? "in the edited order, with latents switched"
    : edited
      ? "in the edited order"
      : "in the plain order";
  $("count").textContent = results.length
    ? `${results.length.toLocaleString("en")} pictures${filtered}, ${order}${exact ? "" : ", found by an approximate index"}.`
    : matches
      ? "No picture was found."
      : "The filter lets no picture through; change it or take it away.";
  $("next").hidden = results.length < state.n || results.length >= matches || state.n >= info.limits.offset;
  $("order").hidden = !info.edited;
  $("start").replaceChildren();
}

function markOf(one, switched) {
  if (switched || state.plain) {
    const was = base.key === keyOf(state, true) ? base.ranks.get(one.id) : one.rank;
    if (state.plain) return was ? grid.markFor(one.rank, was, "in the edited order") : null;
    if (!was)
      return { moved: 1, text: `▲ was below ${base.shown}`, said: `rose, was below ${base.shown} before the switch` };
    return grid.markFor(one.rank, was, "before the switch");
  }
  return answers.edited === false ? null : grid.markFor(one.rank, one.plain_rank, "by the plain cosine");
}

/** Another condition on the columns. */
function also(text) {
  const where = !state.where ? text : state.where.includes(text) ? state.where : `(${state.where}) and ${text}`;
  return asks(state) ? ask({ where }) : ($("where").value = where);
}

function learn(results) {
  for (const one of results)
    for (const [name, value] of Object.entries({ split: one.split, ...one.columns }))
      if (value !== null && (values.get(name)?.size ?? 0) < 20)
        values.set(name, (values.get(name) ?? new Set()).add(value));
  filterHelp(info, values, also);
}

/** The surest names of latents, each once, with the picture that shows it most. */
function beginnings({ concepts }) {
  const named = concepts.filter((one) => one.name).sort((a, b) => b.certainty - a.certainty);
  const each = new Map(named.map((one) => [one.name.replace(/ \(\d+\)$/, "").replace(",", ""), one.top[0]]).reverse());
  return [...each]
    .reverse()
    .slice(0, 12)
    .map(([words, id]) => ({ words, id: info.pictures ? id : "" }));
}

function nothing() {
  answers = { key: "", results: [], n: 0 };
  grid.show(
    [],
    () => null,
    () => null,
  );
  for (const name of ["next", "order", "error"]) $(name).hidden = true;
  $("count").textContent = "";
  start(info, words, ask);
}

function refused(sentence) {
  grid.show(
    [],
    () => null,
    () => null,
  );
  $("count").textContent = "";
  $("next").hidden = true;
  $("start").replaceChildren();
  $("error").textContent = sentence;
  $("error").hidden = false;
}

// The form
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask({ q: $("text").value.trim(), without: $("without").value.trim(), where: $("where").value.trim() });
});
for (const name of ["without", "where"])
  $(name).addEventListener(
    "change",
    () => asks(state) && $(name).value.trim() !== state[name] && $("ask").requestSubmit(),
  );
for (const one of document.getElementsByName("order"))
  one.addEventListener("change", () => go({ plain: one.value === "plain", latents: {} }));
$("next").addEventListener("click", () => go({ n: Math.min(state.n + PAGE, info.limits.offset) }, { replace: true }));
for (const name of Object.keys(views)) $(`tab-${name}`).addEventListener("click", () => go({ tab: name, open: "" }));
document.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
  const names = Object.keys(views).filter((name) => !$(`tab-${name}`).hidden);
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const next = names[(names.indexOf(state.tab) + step + names.length) % names.length];
  $(`tab-${next}`).focus();
  go({ tab: next, open: "" });
});

// Pictures: dropped, pasted, or chosen
function withPicture(file) {
  const name = file.name || "pasted picture";
  pictures.set(name, file);
  answers.key = ""; // another picture may have the same name
  base.key = "";
  ask({ picture: name, q: $("text").value.trim() });
}
$("pick").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  if ($("file").files.length) withPicture($("file").files[0]);
  $("file").value = "";
});
const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
addEventListener("dragenter", (event) => carries(event) && ($("drop").hidden = false));
addEventListener("dragover", (event) => carries(event) && event.preventDefault());
addEventListener("dragleave", (event) => event.relatedTarget || ($("drop").hidden = true));
addEventListener("drop", (event) => {
  $("drop").hidden = true;
  if (!carries(event)) return;
  event.preventDefault();
  if (event.dataTransfer.files.length) withPicture(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => {
  if (event.clipboardData?.files.length) withPicture(event.clipboardData.files[0]);
});

// Keys of the whole page
addEventListener("keydown", (event) => {
  const typing =
    /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName) && document.activeElement.type !== "radio";
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    if (state.tab !== "search") go({ tab: "search" });
    $("text").focus();
    $("text").select();
  }
  if (event.key === "Escape" && state.open) {
    event.preventDefault();
    closed();
  }
  if (event.key === "ArrowDown" && document.activeElement === $("text") && answers.results.length) {
    event.preventDefault();
    grid.focusOn();
  }
});
async function closed() {
  const id = state.open;
  await go({ open: "" });
  grid.focusOn(id);
}
panel.whenClosed(closed);

$("theme").addEventListener("click", () => {
  const root = document.documentElement.style;
  const dark = root.colorScheme ? root.colorScheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.colorScheme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.colorScheme);
  themed();
});
function themed() {
  const own = document.documentElement.style.colorScheme;
  $("theme").setAttribute("aria-pressed", own ? own === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
}

addEventListener("popstate", () => {
  state = read();
  shown();
});

function askToken() {
  const word = el("input", { type: "password", id: "token", autocomplete: "off", "aria-label": "Token" });
  const given = (event) => {
    event.preventDefault();
    api.token.set(word.value);
    location.reload();
  };
  $("start").append(
    el("form", { class: "token", onsubmit: given }, word, el("button", { type: "submit" }, "Use this token")),
  );
  word.focus();
}

themed();
try {
  info = await api.get("api/info");
  $("name").textContent = `${info.name} · ${info.images.toLocaleString("en")} pictures`;
  $("tab-verdict").hidden = !info.comparison;
  $("tab-collection").hidden = !info.editor?.latents;
  filterHelp(info, values, also);
  await shown();
  ready = true;
  if (!asks(state) && info.editor?.named) {
    words = beginnings(await api.get("api/concepts?k=200"));
    if (!asks(state)) start(info, words, ask);
  }
} catch (error) {
  refused(error.message);
  if (error.status === 401) askToken();
}
