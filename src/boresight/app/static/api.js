// What the service is asked. Whatever it refuses comes as one sentence, thrown as an Error.

async function asked(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
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

/** A search by a JSON query, with pictures (files) where there are some. */
export function search(query, files, signal) {
  if (!files.length) return post("api/search", query, signal);
  return post("api/search/image", withPictures(query, files), signal);
}

export function withPictures(query, files) {
  const form = new FormData();
  for (const file of files) form.append("image", file, file.name);
  form.append("query", JSON.stringify(query));
  return form;
}

export const explain = (query, signal) =>
  post(query instanceof FormData ? "api/explain/image" : "api/explain", query, signal);
export const heatmap = (wanted, signal) => post("api/heatmap", wanted, signal);
