// The page asks /api/predict once for each image and model; everything else it
// shows, it draws from the answers.
import { side, covered, scale, heat, overlay, empty } from "./heat.js";
import { panel, percent, record, save } from "./panel.js";
import * as models from "./models.js";
import * as session from "./session.js";

const $ = (id) => document.getElementById(id);
const made = (tag, text, name) => Object.assign(document.createElement(tag), { textContent: text || "", className: name || "" });
let current = null; // {name, file, checkpoint, answer, image, maps, chosen}
let past = []; // of them, the newest first
let turn = 0; // what is shown next: a later wish makes earlier ones stale

function draw() {
  const { answer, image, chosen, maps } = current;
  $("original").getContext("2d").drawImage(image, 0, 0, side, side);
  overlay($("heatmap"), image, maps[chosen], $("opacity").value / 100);
  $("percent").value = $("opacity").value + " %";
  $("shown").textContent = answer.predictions[chosen].class;
  $("nothing").hidden = !empty(answer.maps[chosen]);
  for (const [i, b] of [...$("predictions").querySelectorAll("button")].entries()) b.setAttribute("aria-pressed", i === chosen);
}

// figures of quality, and each in words.
const figures = [
  ["confidence drop", (q) => q.confidence_drop.toFixed(1) + "\u00a0%", "How much less sure the model is when it sees only the region that the map marks. A small drop is flagged: the rest of the image hardly counts."],
  ["confidence increase", (q) => q.confidence_increase.toFixed(1) + "\u00a0%", "How much surer it is when that region is hidden. Well below 0 % means that the region matters."],
  ["concentration", (q) => q.concentration.toFixed(2), "0: the map is even; close to 1: it is a single point. Low values are flagged: the model looked everywhere."],
  ["coverage", (q) => percent(q.coverage), "The share of the image where the map has at least half its maximum. Nearly all and nearly nothing are flagged."],
];

function verdict(answer) {
  if (answer.model.map_note) return ["", answer.model.map_note[0].toUpperCase() + answer.model.map_note.slice(1) + ". The answer is not judged by it."];
  if (answer.suspicious) return ["bad", "Look again: " + answer.reasons.join("; ") + "."];
  return ["good", "Nothing suspicious."];
}

function show(entry) {
  current = entry;
  turn++;
  const { answer } = entry, best = answer.predictions[0];
  $("result").classList.remove("stale");
  $("result").removeAttribute("aria-busy");
  $("stale").hidden = true;
  $("intro").hidden = true;
  $("model").open = false;
  models.choose(entry.checkpoint);
  $("said").textContent = `${entry.name}: ${best.class}, ${percent(best.confidence)}`;
  $("predictions").replaceChildren(...answer.predictions.map((p, i) => {
    const li = made("li"), button = made("button"), row = made("span", "", "row"), bar = made("progress");
    button.type = "button";
    bar.max = 1;
    bar.value = p.confidence;
    bar.setAttribute("aria-hidden", "true");
    row.append(made("span", p.class, "name"), made("span", percent(p.confidence)));
    button.append(row, bar);
    button.addEventListener("click", () => { current.chosen = i; draw(); });
    li.append(button);
    return li;
  }));
  [$("verdict").className, $("verdict").textContent] = verdict(answer);
  const explained = answer.model.map_note ? [] : figures.map(([name, value, words]) => {
    const details = made("details"), summary = made("summary", name + " ");
    summary.append(made("output", value(answer.quality)));
    details.append(summary, made("p", words));
    return details;
  });
  if (explained.length) {
    const details = made("details");
    details.append(made("summary", "How they are computed"), ...answer.formulas.map((f) => made("p", f)));
    explained.push(details);
  }
  $("quality").replaceChildren(...explained);
  $("comparison").replaceChildren(...answer.predictions.map((p, i) => {
    const figure = made("figure"), canvas = made("canvas");
    canvas.width = canvas.height = side;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", "where the model looked for " + p.class);
    overlay(canvas, entry.image, entry.maps[i], covered);
    figure.append(canvas, made("figcaption", `${p.class}, ${percent(p.confidence)}` + (empty(answer.maps[i]) ? ": no evidence for this class" : "")));
    return figure;
  }));
  const m = answer.model;
  $("about").textContent = `${m.architecture}, ${m.classes.length} classes, ${m.image_size} px, ${entry.checkpoint}; answered in ${answer.milliseconds.toFixed(0)} ms`;
  $("result").hidden = false;
  draw();
  gallery();
}

// gallery lists the answers of this session, each to be opened.
function gallery() {
  $("past").hidden = past.length === 0;
  $("history").replaceChildren(...past.map((x) => {
    const li = made("li"), button = made("button"), img = made("img");
    button.type = "button";
    img.src = x.image.src;
    img.alt = "";
    const best = x.answer.predictions[0];
    button.append(img, `${x.name}: ${best.class}, ${percent(best.confidence)}`, made("small", `${x.answer.model.architecture}, ${x.answer.model.image_size} px`));
    button.setAttribute("aria-current", x === current);
    button.addEventListener("click", () => { fail(); show(x); $("said").focus(); });
    li.append(button);
    return li;
  }));
}

// fail shows what went wrong, one line each; none takes it away.
function fail(...texts) {
  texts = texts.filter(Boolean);
  $("error").replaceChildren(...texts.map((t) => made("p", t)));
  $("error").hidden = texts.length === 0;
}

// ready makes an entry of an answer: its image decoded, its maps drawn.
async function ready(entry) {
  const image = new Image(), colours = scale(entry.answer);
  image.src = "data:image/jpeg;base64," + entry.answer.image;
  await image.decode();
  return { ...entry, image, chosen: 0, maps: entry.answer.maps.map((m) => heat(m, colours)) };
}

// predict asks the server; one that is full is asked again in a moment.
async function predict(file, checkpoint) {
  for (let again = 5; ; again--) {
    const form = new FormData();
    form.append("image", file, file.name);
    let response;
    try {
      response = await fetch("api/predict?" + new URLSearchParams({ checkpoint, top_k: 5 }), { method: "POST", body: form });
    } catch {
      throw new Error("The server cannot be reached.");
    }
    if (response.status === 503 && again > 0) {
      await new Promise((done) => setTimeout(done, 1000));
      continue;
    }
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(models.reason(response, answer));
    return answer;
  }
}

const waiting = []; // {file, checkpoint, done}
let working = 0, asked = 0, answered = 0;
const atOnce = 3;

// queue asks about a file when its turn comes.
function queue(file, checkpoint) {
  return new Promise((done) => {
    asked++;
    waiting.push({ file, checkpoint, done });
    work();
  });
}

async function work() {
  busy();
  if (working >= atOnce || waiting.length === 0) return;
  working++;
  const { file: given, checkpoint, done } = waiting.shift(), name = given.name || "pasted image";
  try {
    // Read once: another model may be asked when the file on disk is another, or gone.
    const file = new File([await given.arrayBuffer().catch(() => { throw new Error(name + " cannot be read any more."); })], name, { type: given.type });
    const answer = await predict(file, checkpoint);
    const entry = await ready({ name, file, checkpoint, answer });
    models.learn(checkpoint, answer.model);
    past.unshift(entry);
    past = past.slice(0, session.most);
    session.keep({ name, file, checkpoint, answer }); // nobody waits for it
    done({ entry });
  } catch (e) {
    done({ error: e.message });
  }
  working--;
  answered++;
  work();
}

function busy() {
  if (working === 0 && waiting.length === 0) asked = answered = 0;
  $("busy").hidden = asked === 0;
  $("busy").textContent = asked > 1 ? `Asking the model: ${answered} of ${asked} images answered` : "Asking the model";
}

// ask puts images to the chosen model. The first answer is shown, all are listed.
async function ask(files) {
  const mine = ++turn, checkpoint = $("checkpoint").value, errors = [];
  fail();
  let first = true;
  await Promise.all(files.map(async (file) => {
    const { entry, error } = await queue(file, checkpoint);
    if (error) {
      errors.push(error);
      fail(...errors);
    } else if (first && mine === turn) {
      first = false;
      show(entry);
      $("said").focus();
    } else {
      gallery();
    }
  }));
}

// asOther asks another model about the image that is shown; until it has
// answered, the answer of the one before is dimmed, with its model above it.
async function asOther() {
  models.describe();
  if (!current) return;
  const mine = ++turn, { file, answer, checkpoint } = current;
  if ($("checkpoint").value === checkpoint) { show(current); return; }
  fail();
  $("result").classList.add("stale");
  $("result").setAttribute("aria-busy", "true");
  $("stale").textContent = `This is still the answer of ${answer.model.architecture}, ${checkpoint}.`;
  $("stale").hidden = false;
  const { entry, error } = await queue(file, $("checkpoint").value);
  if (mine !== turn) { gallery(); return; }
  if (error) fail(error);
  else show(entry);
}

// again brings back what this tab was answered before a reload; what it was
// answered since comes before that.
const began = Date.now();
async function again() {
  const before = [];
  for (const x of await session.load()) {
    if (x.at >= began) continue;
    try {
      before.unshift(await ready(x));
    } catch { /* an answer of another version */ }
  }
  past = [...past, ...before].slice(0, session.most);
  if (past.length && !current) show(past[0]);
  else gallery();
}

$("file").addEventListener("change", () => {
  const files = [...$("file").files];
  $("file").value = "";
  if (files.length) ask(files);
});
for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, (e) => { e.preventDefault(); $("drop").classList.add("over"); });
for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, (e) => { e.preventDefault(); $("drop").classList.remove("over"); });
document.addEventListener("drop", (e) => { if (e.dataTransfer && e.dataTransfer.files.length) ask([...e.dataTransfer.files]); });
document.addEventListener("paste", (e) => { if (e.clipboardData && e.clipboardData.files.length) ask([...e.clipboardData.files]); });
$("opacity").addEventListener("input", () => { if (current) draw(); });
$("checkpoint").addEventListener("focus", async () => fail(await models.list()));
$("checkpoint").addEventListener("change", asOther);
$("save-panel").addEventListener("click", () => {
  const { answer } = current, notes = answer.model.map_note || figures.map(([name, value]) => `${name} ${value(answer.quality)}`).join("   ");
  panel(current, notes).toBlob((b) => save(b, stem(current.name) + "_panel.png"), "image/png");
});
$("save-answer").addEventListener("click", () => save(new Blob([record(current)], { type: "application/json" }), stem(current.name) + "_answer.json"));
async function clear() {
  past = [];
  current = null;
  turn++;
  $("result").hidden = true;
  $("intro").hidden = false;
  $("model").open = true;
  gallery();
  await session.forget();
}
$("forget").addEventListener("click", clear);
// The answers go with the session: whoever uses this browser next does not see them.
$("leave").addEventListener("click", async () => {
  const { ok, status } = await fetch("logout", { method: "POST" }).catch(() => ({ status: 0 }));
  if (!ok && status !== 401) { fail("The server cannot be reached."); return; }
  await clear();
  location.replace("/login");
});
const stem = (name) => name.replace(/\.[^.]*$/, "") || "image";

fail(await models.list());
await session.purge();
await again();
