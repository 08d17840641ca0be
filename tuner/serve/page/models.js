// The list of models: by training, the best first.
import { percent } from "./panel.js";

const $ = (id) => document.getElementById(id);
let known = [];

// reason is why the server did not answer; a session ends after a week, and with the server.
export function reason(response, answer) {
  if (response.status === 401) return "You are not signed in any more: open a new link in this browser; `atelier serve --link` prints one.";
  return answer.error || `the server answered with ${response.status}`;
}

// label is a model in a line, distinct within its group.
function label(c) {
  const parts = [c.architecture || c.name];
  if (c.note && c.source === "file") parts.push(c.note);
  if (c.accuracy !== undefined) parts.push(`${percent(c.accuracy)} (${c.measured_on})`);
  if (c.source !== "file") parts.push(c.name, c.note);
  else if (!/best_model\.pth$/.test(c.id)) parts.push(c.id.split("/").pop());
  if (c.image_size) parts.push(`${c.image_size} px`);
  if (c.time) parts.push(c.time.slice(0, 10));
  return parts.filter(Boolean).join(", ") + (c.fault ? ": cannot be read" : "");
}

// list asks for the models and keeps the one that is chosen; it returns what is
// wrong, or nothing.
export async function list() {
  let answer;
  try {
    const response = await fetch("api/checkpoints");
    answer = await response.json();
    if (!response.ok) return reason(response, answer);
  } catch {
    return "The server cannot be reached.";
  }
  known = answer.checkpoints;
  const select = $("checkpoint"), chosen = select.value, groups = new Map();
  for (const c of known) {
    const o = document.createElement("option");
    o.value = c.id;
    o.textContent = label(c);
    o.title = c.id;
    o.disabled = Boolean(c.fault);
    const name = c.group || "files";
    if (!groups.has(name)) {
      groups.set(name, document.createElement("optgroup"));
      groups.get(name).label = name;
    }
    groups.get(name).append(o);
  }
  select.replaceChildren(...groups.values());
  if (known.some((c) => c.id === chosen)) select.value = chosen;
  select.disabled = known.length === 0;
  describe();
  const problems = (answer.problems || []).join("; ");
  if (known.length === 0) return "No model found: train one, or give one with --checkpoint." + (problems ? " " + problems : "");
  return problems;
}

// choose selects a model without asking it; false where it is not in the list.
export function choose(id) {
  if (!known.some((c) => c.id === id)) return false;
  $("checkpoint").value = id;
  describe();
  return true;
}

// learn notes what an answer contains about a model beyond the list.
export function learn(id, model) {
  const c = known.find((x) => x.id === id);
  if (!c) return;
  Object.assign(c, { classes: model.classes, architecture: model.architecture, image_size: model.image_size });
  describe();
}

// describe shows what the chosen model is and knows.
export function describe() {
  const c = known.find((x) => x.id === $("checkpoint").value);
  if (!c) {
    $("facts").textContent = "No model found";
    $("classes").replaceChildren();
    return;
  }
  const parts = [c.architecture || c.name];
  if (c.image_size) parts.push(`${c.image_size} px`);
  if (c.accuracy !== undefined) parts.push(`${c.measured_on} accuracy ${percent(c.accuracy)}`);
  if (c.time) parts.push(c.time.slice(0, 16).replace("T", " ") + " UTC");
  const n = (c.classes || []).length;
  $("facts").textContent = parts.join(", ") + (n ? `. It knows ${n} ${n === 1 ? "class" : "classes"}` : "");
  $("classes").replaceChildren(...(c.classes || []).map((name) => {
    const li = document.createElement("li");
    li.textContent = name;
    return li;
  }));
}
