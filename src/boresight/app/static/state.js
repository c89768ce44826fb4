// The search as it stands in the address, so that it can be linked and the back button works.

export const PAGE = 24;
const WORDS = ["q", "without", "where", "picture", "open", "heat", "concept"];
const EMPTY = {
  tab: "search",
  q: "",
  without: "",
  where: "",
  like: [],
  unlike: [],
  picture: "",
  latents: {},
  plain: false,
  n: PAGE,
  open: "",
  heat: "",
  concept: "",
};

export function read(search = location.search) {
  const given = new URLSearchParams(search);
  const state = { ...EMPTY, latents: {} };
  for (const name of WORDS) state[name] = given.get(name) ?? "";
  for (const name of ["like", "unlike"]) state[name] = given.getAll(name);
  if (["collection", "verdict"].includes(given.get("tab"))) state.tab = given.get("tab");
  state.plain = given.get("order") === "plain";
  const n = Number(given.get("n"));
  if (Number.isInteger(n) && n > 0) state.n = Math.min(n, 1000);
  for (const one of given.getAll("latent")) {
    const [number, weight] = one.split(":");
    if (/^\d+$/.test(number) && Number.isFinite(Number(weight)) && weight) state.latents[number] = Number(weight);
  }
  return state;
}

export function written(state) {
  const out = new URLSearchParams();
  if (state.tab !== "search") out.set("tab", state.tab);
  for (const name of WORDS) if (state[name]) out.set(name, state[name]);
  for (const name of ["like", "unlike"]) for (const id of state[name]) out.append(name, id);
  for (const [number, weight] of Object.entries(state.latents)) out.append("latent", `${number}:${weight}`);
  if (state.plain) out.set("order", "plain");
  if (state.n !== PAGE) out.set("n", state.n);
  const text = out.toString();
  return text ? `?${text}` : location.pathname;
}

/** Whether there is anything to search for. */
export const asks = (state) => Boolean(state.q || state.like.length || state.picture);

/** The query as the service reads it. */
export function queryOf(state, { latents = state.latents, plain = state.plain, k = state.n, offset = 0 } = {}) {
  const query = { k, offset };
  if (state.q) query.text = [state.q];
  if (state.without) query.without = [state.without];
  if (state.where) query.where = state.where;
  if (state.like.length) query.like = state.like;
  if (state.unlike.length) query.unlike = state.unlike;
  if (plain) query.plain = true;
  else if (Object.keys(latents).length) query.latents = latents;
  return query;
}

/** What of the state changes the answers; `base` leaves out what only changes their order. */
export const keyOf = (state, base = false) =>
  JSON.stringify([state.picture, queryOf(state, base ? { latents: {}, plain: false, k: 0 } : { k: 0 })]);
