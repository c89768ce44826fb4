// What the service is asked. Whatever it refuses comes as one sentence, thrown as an Error.

/** The word that a guarded service wants with every request, kept until the browser is closed. */
export const token = {
  get: () => sessionStorage.getItem("token") ?? "",
  set: (word) => sessionStorage.setItem("token", word),
};

async function asked(path, options = {}) {
  let answer;
  const headers = { ...options.headers, ...(token.get() && { Authorization: `Bearer ${token.get()}` }) };
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The service does not answer; start it again with boresight serve.");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  const refused = new Error(said.error ?? `The service answered ${answer.status} ${answer.statusText}.`);
  refused.status = answer.status;
  throw refused;
}

const json = async (path, options) => (await asked(path, options)).json();

function post(path, body, signal) {
  const form = body instanceof FormData;
  return json(path, {
    method: "POST",
    signal,
    body: form ? body : JSON.stringify(body),
    headers: form ? {} : { "Content-Type": "application/json" },
  });
}

export const get = json;

/** An address that an <img> can show: itself, or a copy in this page where the service wants a token. */
export const shownAddress = async (path) =>
  token.get() ? URL.createObjectURL(await (await asked(path)).blob()) : path;

/** A search by a JSON query, with pictures (files) where there are some. */
export function search(query, files, signal) {
  if (!files.length) return post("api/search", query, signal);
  return post("api/search/image", withPictures(query, files), signal);
}

function withPictures(query, files) {
  const form = new FormData();
  for (const file of files) form.append("image", file, file.name);
  form.append("query", JSON.stringify(query));
  return form;
}

export function explain(query, files, signal) {
  if (!files.length) return post("api/explain", query, signal);
  return post("api/explain/image", withPictures(query, files), signal);
}
export const heatmap = (wanted, signal) => post("api/heatmap", wanted, signal);
