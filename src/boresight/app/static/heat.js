// The picture with a map over it of where it matches the words, and the words by how much they carry.
import * as api from "./api.js";
import { el, fill } from "./dom.js";

const METHODS = { m2ib: "M2IB", "bottleneck-path": "Bottleneck path" };
let opacity = 75; // from one result to the next

/** shot: the picture. A map is asked for when it is chosen. */
export function heat(shot, { id, state, info, go }) {
  const stage = el("div", { class: "stage" }, shot);
  const figure = el("figure", {}, stage);
  const methods = state.q && info.pictures ? info.methods.filter((name) => name in METHODS) : [];
  if (!methods.length) return figure;

  const overlay = el("img", { class: "overlay", alt: "", hidden: true });
  const words = el("p", { class: "heated", "aria-live": "polite", hidden: true });
  const dim = () => {
    opacity = Number(slider.value);
    overlay.style.opacity = opacity / 100;
  };
  const slider = el("input", {
    type: "range",
    min: 0,
    max: 100,
    value: opacity,
    "aria-label": "Opacity of the map",
    oninput: dim,
    hidden: true,
  });
  stage.append(overlay);
  let running = null;
  async function choose(method) {
    running?.abort();
    overlay.hidden = words.hidden = slider.hidden = true;
    stage.removeAttribute("aria-busy");
    if (!method) return;
    running = new AbortController();
    const { signal } = running;
    stage.setAttribute("aria-busy", "true");
    try {
      const map = await api.heatmap({ text: state.q, id, method }, signal);
      overlay.src = map.overlay;
      overlay.alt = `Where the picture matches “${state.q}”, by ${METHODS[method]}`;
      fill(words, ...said(map.words));
      overlay.hidden = slider.hidden = false;
      dim();
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(words, error.message);
    }
    words.hidden = false;
    stage.removeAttribute("aria-busy");
  }
  const now = methods.includes(state.heat) ? state.heat : "";
  const chosen = (method) => {
    go({ heat: method }, { replace: true });
    choose(method);
  };
  const radio = (value, label) =>
    el(
      "label",
      {},
      el("input", { type: "radio", name: "heat", value, checked: value === now, onchange: () => chosen(value) }),
      el("span", {}, label),
    );
  const choice = el(
    "fieldset",
    { class: "choice" },
    el("legend", { class: "hidden" }, "Map of where the words match"),
    radio("", "Picture"),
    methods.map((name) => radio(name, METHODS[name])),
  );
  figure.append(el("div", { class: "heat" }, choice, slider), words);
  if (now) choose(now);
  return figure;
}

function said(words) {
  const most = Math.max(...words.map((one) => one.weight), 1e-9);
  return words.flatMap((one) => [
    el(
      "span",
      {
        title: `weight ${one.weight.toFixed(3)}`,
        vars: { "--heat": `${Math.round((Math.max(0, one.weight) / most) * 100)}%` },
      },
      one.text,
    ),
    " ",
  ]);
}
