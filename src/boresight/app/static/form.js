// The parts of the form that depend on the index: chips of what is asked, hints for the filter, where to start.
import { $, el, fill, picture, thumbnailOf } from "./dom.js";

/** One chip for each part of the search that has no field of its own; each can be taken away. */
export function chips(state, pictures, ask) {
  const chip = (kind, words, address, changes) =>
    el(
      "li",
      { class: kind },
      picture(address, "", words),
      el("span", {}, `${kind === "unlike" ? "not like" : "like"} ${words}`),
      el("button", { type: "button", "aria-label": `Take away ${words}`, onclick: () => ask(changes) }, "×"),
    );
  const shown = [];
  if (state.picture) {
    const file = pictures.get(state.picture);
    shown.push(chip("picture", state.picture, file && addressOf(file), { picture: "" }));
  }
  for (const kind of ["like", "unlike"])
    for (const id of state[kind])
      shown.push(chip(kind, id, thumbnailOf(id), { [kind]: state[kind].filter((one) => one !== id) }));
  fill($("chips"), ...shown);
}

const addresses = new WeakMap();
function addressOf(file) {
  if (!addresses.has(file)) addresses.set(file, URL.createObjectURL(file));
  return addresses.get(file);
}

const plainName = /^[A-Za-z_]\w*$/;
const quoted = (value) =>
  typeof value === "string" ? `'${value.replace(/\\/g, "\\\\").replace(/'/g, "\\'")}'` : String(value);

/** A condition on one column, as the filter is written. */
export const condition = (column, value) =>
  value === null || value === undefined
    ? `${column} is None`
    : `${column} == ${typeof value === "boolean" ? (value ? "True" : "False") : quoted(value)}`;

export const filterable = (column, value) =>
  plainName.test(column) && ["string", "number", "boolean"].includes(typeof value);

/** What the columns are, and a button for each value of a column that showed few in the answers so far. */
export function filterHelp(info, values, add) {
  const columns = info.columns.filter((one) => plainName.test(one.name));
  const where = $("where");
  $("filters").hidden = where.closest("label").hidden = !columns.length;
  if (!columns.length) return;
  const example = exampleOf(columns, values);
  where.placeholder = example;
  const few = (name) => {
    const seen = [...(values.get(name) ?? [])].filter((one) => one !== "");
    return seen.length > 1 && seen.length <= FEW && seen.every((one) => String(one).length <= 40) ? seen.sort() : [];
  };
  fill(
    $("where-help"),
    el(
      "p",
      { class: "soft" },
      "Conditions on these columns, joined by ",
      el("code", {}, "and"),
      ", ",
      el("code", {}, "or"),
      ", ",
      el("code", {}, "not"),
      ": ",
      el("code", {}, "== != < <= > >="),
      ", ",
      el("code", {}, "in ['a', 'b']"),
      ", ",
      el("code", {}, "is None"),
      ". For example ",
      el("code", {}, example),
    ),
    el(
      "dl",
      {},
      columns.map(({ name, type }) => [
        el("dt", {}, name, el("small", {}, type)),
        el(
          "dd",
          {},
          few(name).map((value) =>
            el("button", { type: "button", onclick: () => add(condition(name, value)) }, String(value)),
          ),
        ),
      ]),
    ),
  );
}

const FEW = 8;

function exampleOf(columns, values) {
  const known = columns.find(({ name }) => values.get(name)?.size);
  if (known) return condition(known.name, [...values.get(known.name)][0]);
  const { name, type } = columns.find((one) => one.name !== "id") ?? columns[0];
  return { number: `${name} > 100`, boolean: name, time: `${name} > '2024-05-01'` }[type] ?? `${name} == 'test'`;
}

/** Before anything is asked: what can be done, and words to begin with. */
export function start(info, words, ask) {
  const key = (name, does) => el("span", {}, el("kbd", {}, name), ` ${does}`);
  fill(
    $("start"),
    el(
      "div",
      { class: "welcome" },
      el("h1", {}, "Search pictures in words, and see why"),
      el(
        "p",
        {},
        info.edited
          ? "Say what you look for, or drop a picture here. An editor moves each picture towards what people write of such pictures; every result says how far it moved, and why."
          : "Say what you look for, or drop a picture here. This index has no editor, so pictures are ordered by the plain cosine.",
      ),
      words.length > 0 &&
        el(
          "div",
          { class: "try" },
          words.map(({ words, id }) =>
            el(
              "button",
              { type: "button", onclick: () => ask({ q: words }) },
              picture(id && thumbnailOf(id), "", ""),
              words,
            ),
          ),
        ),
      el("p", { class: "keys" }, key("/", "search"), key("↑ ↓ ← →", "walk"), key("Enter", "open"), key("Esc", "close")),
    ),
  );
}
