// Draws /openapi.json. Only text nodes are made, never HTML of what was read.
"use strict";

function make(tag, text, className) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

function nameOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(nameOf).join(" | ");
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(" | ");
  if (schema.type === "array") return `[${nameOf(schema.items)}]`;
  if (schema.type === "object" && schema.additionalProperties) return `{name: ${nameOf(schema.additionalProperties) || "any"}}`;
  const limits = [];
  if (schema.minimum !== undefined) limits.push(`from ${schema.minimum}`);
  if (schema.maximum !== undefined) limits.push(`to ${schema.maximum}`);
  return [schema.format || schema.type || "any", ...limits].join(" ");
}

function table(rows, head) {
  const node = make("table");
  const first = node.appendChild(make("tr"));
  head.forEach((text) => first.appendChild(make("th", text)));
  for (const row of rows) {
    const line = node.appendChild(make("tr"));
    row.forEach((text, place) => line.appendChild(make("td", text, place < 2 ? "type" : "")));
  }
  return node;
}

function fields(schema) {
  const required = new Set(schema.required || []);
  return Object.entries(schema.properties || {}).map(([name, each]) => [
    name,
    nameOf(each),
    each.description || "",
    required.has(name) ? "needed" : each.default === undefined ? "" : JSON.stringify(each.default),
  ]);
}

function route(method, path, said) {
  const section = make("section");
  const title = section.appendChild(make("h3"));
  title.appendChild(make("span", method.toUpperCase(), "method"));
  title.appendChild(make("code", path));
  section.appendChild(make("p", said.summary));
  const rows = (said.parameters || []).map((each) => [
    each.name, nameOf(each.schema), each.description || "", each.required ? "needed" : JSON.stringify(each.schema.default),
  ]);
  if (rows.length) section.appendChild(table(rows, ["parameter", "type", "what", "left out"]));
  for (const [type, body] of Object.entries((said.requestBody || {}).content || {})) {
    section.appendChild(make("p", `Body: ${nameOf(body.schema)} (${type})`));
  }
  for (const [type, body] of Object.entries((said.responses["200"] || {}).content || {})) {
    section.appendChild(make("p", `Answer: ${nameOf(body.schema) || type} (${type})`));
  }
  return section;
}

async function draw() {
  const said = await (await fetch("/openapi.json")).json();
  const routes = document.getElementById("routes");
  for (const [path, methods] of Object.entries(said.paths)) {
    for (const [method, each] of Object.entries(methods)) routes.appendChild(route(method, path, each));
  }
  const schemas = document.getElementById("schemas");
  for (const [name, schema] of Object.entries(said.components.schemas)) {
    schemas.appendChild(make("h3", name));
    if (schema.description) schemas.appendChild(make("p", schema.description));
    schemas.appendChild(table(fields(schema), ["field", "type", "what", "left out"]));
  }
}

draw();
