// What the editor sees in the whole collection: its most frequent latents, and a map of their directions.
import { get } from "./api.js";
import { el, fill, picture, svg, thumbnailOf } from "./dom.js";

const SIZE = 720;
const PAGE = 24;
const UNTOLD = 8; // latents that captions leave out
let asked = null;
let listed = PAGE;

export async function show(view, { state, ask, go }) {
  if (!view.firstChild) fill(view, el("p", { class: "soft" }, "Reading the collection …"));
  try {
    asked ??= Promise.all([get("api/concepts?k=200"), get("api/concepts/map")]);
    const [list, map] = await asked;
    paint(view, list, map, state, ask, go);
  } catch (error) {
    asked = null;
    fill(view, el("p", { class: "error", role: "alert" }, error.message));
  }
}

function paint(view, { total, concepts }, map, state, ask, go) {
  const again = () => paint(view, { total, concepts }, map, state, ask, go);
  const choose = (latent) => go({ concept: String(latent) }, { replace: true });
  const search = (name) => ask({ q: name, concept: "" });
  const silence = (one) => one.images * (1 - one.told);
  const untold = concepts
    .filter((one) => one.told !== null && one.told < 0.5)
    .sort((a, b) => silence(b) - silence(a))
    .slice(0, UNTOLD);
  fill(
    view,
    el("h1", {}, "What the editor sees in this collection"),
    el(
      "p",
      { class: "lead" },
      `${total.toLocaleString("en")} latents are active in its pictures. Below are the most frequent, each with the pictures that show it most; a name tells what captions say of them.`,
    ),
    map.points.length > 2 && [
      el("h2", {}, "Map of named latents"),
      el(
        "p",
        { class: "soft" },
        `Latents whose directions are alike lie near each other; a larger dot is active in more pictures. The two axes hold ${Math.round(map.share * 100)} % of the variance. `,
      ),
      el(
        "div",
        { class: "mapped" },
        drawn(map.points, state.concept, choose),
        chosen(concepts, map.points, state.concept, search),
      ),
    ],
    untold.length > 0 && [
      el("h2", {}, "What captions leave out"),
      el(
        "p",
        { class: "soft" },
        "Latents that are in many pictures and that captions seldom speak of: of the captioned pictures that the editor remembers and that have one, few say it.",
      ),
      el(
        "ul",
        { class: "concepts", id: "untold" },
        untold.map((one) => el("li", {}, card(one, search))),
      ),
    ],
    el("h2", {}, "Most frequent latents"),
    el(
      "ul",
      { class: "concepts" },
      concepts.slice(0, listed).map((one) => el("li", {}, card(one, search))),
    ),
    listed < concepts.length &&
      el("button", { type: "button", class: "next", onclick: () => ((listed += PAGE), again()) }, "More"),
  );
}

const nameOf = (one) => one.name || `latent ${one.latent}`;

function card(one, search) {
  return el(
    "article",
    { class: "concept" },
    el("h3", {}, nameOf(one)),
    el(
      "p",
      { class: "soft" },
      `in ${one.images.toLocaleString("en")} pictures`,
      one.name && `, name sure by ${one.certainty.toFixed(2)}`,
      one.told !== null && `, told in ${Math.round(100 * one.told)} %`,
    ),
    one.top &&
      el(
        "div",
        { class: "four" },
        one.top.slice(0, 4).map((id) => picture(thumbnailOf(id), id)),
      ),
    one.name &&
      el(
        "button",
        { type: "button", onclick: () => search(one.name.replace(/ \(\d+\)$/, "")) },
        `Search “${one.name}”`,
      ),
  );
}

function chosen(concepts, points, latent, search) {
  const one =
    concepts.find((each) => String(each.latent) === latent) ?? points.find((each) => String(each.latent) === latent);
  return el(
    "div",
    { id: "chosen", "aria-live": "polite" },
    one ? card(one, search) : el("p", { class: "soft" }, "Choose a dot to see its pictures."),
  );
}

function drawn(points, latent, choose) {
  const most = Math.max(...points.map((one) => one.images), 1);
  const at = (value, flip = 1) => SIZE / 2 + flip * value * (SIZE / 2 - 40);
  const ranked = [...points].sort((a, b) => b.images - a.images);
  const written = [];
  const marks = ranked.map((one) => {
    const [x, y] = [at(one.x), at(one.y, -1)];
    const size = 4 + 12 * Math.sqrt(one.images / most);
    const room = {
      left: x - 4 * one.name.length,
      right: x + 4 * one.name.length,
      top: y - size - 16,
      bottom: y - size,
    };
    const free = written.every(
      (other) =>
        room.right < other.left || room.left > other.right || room.bottom < other.top || room.top > other.bottom,
    );
    if (free) written.push(room);
    const own = String(one.latent) === latent;
    return svg(
      "g",
      {
        class: own ? "point own" : "point",
        tabindex: "0",
        role: "button",
        "aria-pressed": String(own),
        "aria-label": `${one.name}, in ${one.images} pictures`,
        onclick: () => choose(one.latent),
        onkeydown: (event) =>
          (event.key === "Enter" || event.key === " ") && (event.preventDefault(), choose(one.latent)),
      },
      svg("circle", { cx: x, cy: y, r: size }),
      svg("title", {}, `${one.name}, in ${one.images} pictures`),
      svg("text", { x, y: y - size - 4, class: free || own ? "shown" : "quiet" }, one.name),
    );
  });
  return el(
    "div",
    { class: "map card" },
    svg("svg", { viewBox: `0 0 ${SIZE} ${SIZE}`, role: "group", "aria-label": "Map of named latents" }, marks),
  );
}
