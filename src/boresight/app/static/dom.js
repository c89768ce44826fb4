// Elements. What comes from data becomes a text node or an attribute, never markup.
import { shownAddress, token } from "./api.js";

const SVG = "http://www.w3.org/2000/svg";

/** An element with properties and children; a child that is null or false is left out. */
export function el(tag, given = {}, ...children) {
  return filled(document.createElement(tag), given, children);
}

/** The same in SVG. */
export function svg(tag, given = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), given, children);
}

function filled(node, given, children) {
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "vars") for (const [key, one] of Object.entries(value)) node.style.setProperty(key, one);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...kept(children));
  return node;
}

const kept = (children) =>
  children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);

/** Put these children in place of those that are there. */
export const fill = (node, ...children) => node.replaceChildren(...kept(children));

export const $ = (id) => document.getElementById(id);

export const thumbnailOf = (id) => `api/images/thumbnail?id=${encodeURIComponent(id)}`;
export const originalOf = (id) => `api/images/original?id=${encodeURIComponent(id)}`;

/** The small picture of an image, or its id in a frame where there is none. */
export function picture(address, alt, words = alt) {
  const missing = () => el("span", { class: "missing", role: "img", "aria-label": alt }, words);
  if (!address) return missing();
  const image = el("img", { alt, loading: "lazy", decoding: "async", draggable: "false" });
  const lost = () => image.replaceWith(missing());
  image.addEventListener("error", lost, { once: true });
  if (!token.get() || address.startsWith("blob:")) image.src = address;
  else shownAddress(address).then((shown) => (image.src = shown), lost);
  return image;
}

const ENDINGS = { one: "st", two: "nd", few: "rd", other: "th" };
const kinds = new Intl.PluralRules("en", { type: "ordinal" });

/** 1 -> 1st, 1012 -> 1,012th. */
export const ordinal = (number) => `${number.toLocaleString("en")}${ENDINGS[kinds.select(number)]}`;

/** A signed figure with a true minus. */
export const signed = (number, digits = 4) => `${number < 0 ? "−" : "+"}${Math.abs(number).toFixed(digits)}`;

export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
