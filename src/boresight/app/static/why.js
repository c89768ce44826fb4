// Why a result has its score: latents with switches, parts that add up, remembered pairs.
import { el, picture, signed, thumbnailOf } from "./dom.js";

/**
 * The latents kept and dropped, each with a switch; flip(latents) asks anew with these switched.
 * tops: latent -> ids of the pictures that have most of it, which say more than a name.
 */
export function latents(explanation, reasons, state, tops, flip) {
  const { latents_kept: kept, latents_dropped: dropped } = explanation;
  const most = Math.max(...[...kept, ...dropped].map((one) => one.activation), 1e-9);
  const row = (one, isKept) => {
    const changed = one.index in state.latents;
    const on = changed ? state.latents[one.index] > 0 : isKept;
    const id = `latent-${one.index}`;
    const switched = reasons.switched.find((each) => each.latent === one.index);
    const turn = () => {
      const { [one.index]: _, ...others } = state.latents;
      flip(changed ? others : { ...others, [one.index]: isKept ? 0 : 1 });
    };
    return el(
      "li",
      { class: changed ? "changed" : null },
      el("button", {
        type: "button",
        role: "switch",
        id,
        "aria-checked": String(on),
        "aria-labelledby": `${id}-name`,
        onclick: turn,
      }),
      el(
        "span",
        { class: "name" },
        el("span", { id: `${id}-name` }, one.label),
        one.certainty > 0 && el("small", { title: "How sure the name is, from 0 to 1" }, one.certainty.toFixed(2)),
        el(
          "span",
          { class: "tops", title: "The pictures that show it most" },
          (tops.get(one.index) ?? []).slice(0, 3).map((id) => picture(thumbnailOf(id), "", "")),
        ),
      ),
      el(
        "span",
        {
          class: "level",
          title: `activation ${one.activation.toFixed(3)}, of which the words keep ${Math.round(one.mask * 100)} %`,
          vars: { "--long": one.activation / most, "--kept": Math.min(1, Math.max(0, one.mask)) },
        },
        el("i"),
        el("i"),
      ),
      el(
        "span",
        { class: "effect" },
        switched ? el("b", { title: "what the switch changed" }, signed(switched.effect)) : signed(isKept ? one.kept : one.dropped),
      ),
    );
  };
  const group = (title, rows, isKept) => [
    el("h4", {}, title),
    rows.length
      ? el(
          "ul",
          { class: "latents" },
          rows.map((one) => row(one, isKept)),
        )
      : el("p", { class: "soft" }, "None."),
  ];
  const listed = new Set([...kept, ...dropped].map((one) => one.index));
  const elsewhere = reasons.switched
    .filter((one) => !listed.has(one.latent))
    .map((one) => ({ index: one.latent, label: one.label, certainty: 0, activation: 0, mask: 0 }));
  const count = Object.keys(state.latents).length;
  return el(
    "section",
    {},
    el("h3", {}, "What the words keep of the picture"),
    el(
      "p",
      { class: "soft" },
      "The bar is how strongly the picture shows it; its solid part is what your words keep. Flip a switch and the whole collection is ordered anew.",
    ),
    group("Kept, with their part of the score", kept, true),
    group("Dropped, with what that changed of the score", dropped, false),
    elsewhere.length > 0 && group("Switched, and not among those of this picture", elsewhere, true),
    count > 0 &&
      el(
        "p",
        {},
        el(
          "button",
          { type: "button", id: "switch-back", onclick: () => flip({}) },
          count === 1 ? "Switch it back" : `Switch all ${count} back`,
        ),
      ),
  );
}

/** Parts of the score, of each text and picture of the query, which add up. */
export function parts(reasons) {
  const several = reasons.terms.length > 1;
  const lines = [];
  for (const term of reasons.terms) {
    const words = term.kind === "text" ? `“${term.label}”` : term.label;
    const weight = `${signed(term.weight, 2)} × `;
    if (!term.explanation) {
      lines.push({ name: `${several ? weight : ""}cosine with ${words}`, value: term.weight * term.score });
      continue;
    }
    if (several) lines.push({ head: `${weight}${words}` });
    for (const [name, value] of Object.entries(term.explanation.parts))
      lines.push({ name, value: term.weight * value, inner: several });
  }
  for (const one of reasons.switched) lines.push({ name: `switched: ${one.label}`, value: one.effect });
  const most = Math.max(...lines.map((one) => Math.abs(one.value ?? 0)), 1e-9);
  const row = (one) =>
    one.head
      ? el("tr", {}, el("th", { scope: "rowgroup", colspan: 3 }, one.head))
      : el(
          "tr",
          {},
          el("th", { scope: "row", class: one.inner ? "inner" : null }, one.name),
          el(
            "td",
            { class: "bar" },
            el("i", { class: one.value < 0 ? "less" : null, vars: { "--long": Math.abs(one.value) / most } }),
          ),
          el("td", {}, signed(one.value)),
        );
  const plain = reasons.terms.reduce((sum, term) => sum + term.weight * term.plain_score, 0);
  const edited = reasons.terms.some((term) => term.explanation);
  return el(
    "section",
    {},
    el("h3", {}, "The score, in parts that add up"),
    el(
      "table",
      { class: "parts" },
      el("tbody", {}, lines.map(row)),
      el("tfoot", {}, el("tr", {}, el("th", { scope: "row" }, "score"), el("td"), el("td", {}, signed(reasons.score)))),
    ),
    edited && el("p", { class: "soft" }, `By the plain cosine it would be ${signed(plain)}.`),
  );
}

/** The remembered pairs that moved the picture, and those that moved the words. */
export function memory(explanation) {
  const shelf = (title, pairs) =>
    pairs.length > 0 && [
      el("h4", {}, title),
      el(
        "ul",
        { class: "memory" },
        pairs.slice(0, 6).map((pair) => {
          const words = pair.captions[0] || pair.image_id || `pair ${pair.row}`;
          return el(
            "li",
            {},
            picture(pair.image_id && thumbnailOf(pair.image_id), words, words),
            el("span", { class: "words" }, pair.captions[0] ?? ""),
            el("span", { class: "effect" }, signed(pair.effect)),
          );
        }),
      ),
    ];
  const shown = [
    shelf("Their captions moved the picture", explanation.image_memory),
    shelf("Their pictures moved the words", explanation.text_memory),
  ];
  return (
    shown.some(Boolean) &&
    el(
      "section",
      {},
      el("h3", {}, "Remembered pairs"),
      el(
        "p",
        { class: "soft" },
        "Pictures with captions that the editor learnt from and recalled here; the figure is their part of the score.",
      ),
      shown,
    )
  );
}
