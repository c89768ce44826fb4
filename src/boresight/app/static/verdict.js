// What the comparison says of the editor: the verdict and the table of each test set.
import { get } from "./api.js";
import { el, fill } from "./dom.js";

let asked = null;

export async function show(view) {
  if (!view.firstChild) fill(view, el("p", { class: "soft" }, "Reading the comparison …"));
  try {
    asked ??= get("api/verdict");
    const { seeds, tests } = await asked;
    fill(
      view,
      el("h1", {}, "Is the editor worth it here?"),
      el(
        "p",
        { class: "lead" },
        `Measured on pictures it was not fitted on, means over ${seeds.length} ${seeds.length === 1 ? "seed" : "seeds"}. Recalls are in percent.`,
      ),
      ...tests.map(section),
    );
  } catch (error) {
    asked = null;
    fill(view, el("p", { class: "error", role: "alert" }, error.message));
  }
}

function section(test) {
  const best = test.measures.map((_, at) =>
    Math.max(...test.rows.filter((row) => row.role !== "control").map((row) => row.values[at])),
  );
  return el(
    "section",
    {},
    el("h2", {}, test.name),
    test.sentence && el("p", { class: `verdict is-${test.word}` }, el("b", {}, test.word), " ", test.sentence),
    test.warnings.map((one) => el("p", { class: "warning" }, one)),
    el(
      "div",
      { class: "card scroll", tabindex: "0", role: "region", "aria-label": `Table of ${test.name}` },
      el(
        "table",
        { class: "figures" },
        el(
          "caption",
          {},
          `${test.images.toLocaleString("en")} pictures, ${test.captions.toLocaleString("en")} captions. The best of each column is underlined, controls apart.`,
        ),
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            el("td"),
            test.measures.map((name) => el("th", { scope: "col" }, name)),
          ),
        ),
        el(
          "tbody",
          {},
          test.rows.map((row) =>
            el(
              "tr",
              { class: row.role },
              el("th", { scope: "row" }, row.name, el("small", {}, row.meaning)),
              row.values.map((value, at) =>
                el("td", { class: row.role !== "control" && value === best[at] ? "best" : null }, value.toFixed(1)),
              ),
            ),
          ),
        ),
      ),
    ),
  );
}
