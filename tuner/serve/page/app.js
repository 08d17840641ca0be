"use strict";
// The page asks /api/predict once a picture; everything it shows after that,
// it draws from the answer.
const $ = (id) => document.getElementById(id);
const side = 280;
let current = null; // {name, answer, picture (Image), chosen}
const past = [];
let asked = 0; // a later picture makes earlier answers stale

// jet is the colour scale of heat maps, as the server's pictures have it.
function jet(v) {
  const c = (centre) => Math.round(255 * Math.min(Math.max(1.5 - Math.abs(4 * v - centre), 0), 1));
  return [c(3), c(2), c(1)];
}

// heat stretches a map over the picture: bilinear, half-pixel centres.
function heat(map) {
  const image = new ImageData(side, side);
  const taps = (from) => Array.from({ length: side }, (_, i) => {
    const at = Math.max((i + 0.5) * from / side - 0.5, 0);
    const a = Math.min(Math.floor(at), from - 1);
    return [a, Math.min(a + 1, from - 1), at - a];
  });
  const xs = taps(map.width), ys = taps(map.height);
  for (let y = 0; y < side; y++) {
    const [a, b, v] = ys[y];
    for (let x = 0; x < side; x++) {
      const [l, r, u] = xs[x];
      const top = map.values[a * map.width + l] * (1 - u) + map.values[a * map.width + r] * u;
      const low = map.values[b * map.width + l] * (1 - u) + map.values[b * map.width + r] * u;
      const [red, green, blue] = jet(top * (1 - v) + low * v);
      image.data.set([red, green, blue, 255], 4 * (y * side + x));
    }
  }
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function overlay(canvas, picture, map, opacity) {
  const c = canvas.getContext("2d");
  c.globalAlpha = 1;
  c.drawImage(picture, 0, 0, side, side);
  c.globalAlpha = opacity;
  c.drawImage(map, 0, 0);
  c.globalAlpha = 1;
}

const percent = (v) => (100 * v).toFixed(1) + " %";

function draw() {
  const { answer, picture, chosen, maps } = current;
  overlay($("picture"), picture, maps[chosen], $("opacity").value / 100);
  $("heat").getContext("2d").drawImage(maps[chosen], 0, 0);
  $("percent").value = $("opacity").value + " %";
  $("shown").textContent = answer.predictions[chosen].class;
  $("nothing").hidden = !empty(answer.maps[chosen]);
  for (const [i, b] of [...$("predictions").querySelectorAll("button")].entries()) b.setAttribute("aria-pressed", i === chosen);
}

// empty: Grad-CAM keeps what speaks for a class alone, which may be nothing.
const empty = (map) => map.values.every((v) => v < 1e-6);

const reasons = {
  low_confidence_drop: "the model is nearly as sure when it sees only the heat map's region",
  high_average_drop: "the heat map's region alone does not carry the prediction",
  low_concentration: "the heat map is spread out",
  high_coverage: "the heat map covers most of the picture",
  low_coverage: "the heat map is hardly more than a point",
};

function show(entry) {
  current = entry;
  const { answer } = entry;
  const best = answer.predictions[0];
  $("said").textContent = `${entry.name}: ${best.class}, ${percent(best.confidence)}`;
  $("predictions").replaceChildren(...answer.predictions.map((p, i) => {
    const li = document.createElement("li"), button = document.createElement("button"), row = document.createElement("span");
    const name = document.createElement("span"), value = document.createElement("span"), bar = document.createElement("progress");
    button.type = "button";
    row.className = "row";
    name.className = "name";
    name.textContent = p.class;
    value.textContent = percent(p.confidence);
    bar.max = 1;
    bar.value = p.confidence;
    bar.setAttribute("aria-hidden", "true");
    row.append(name, value);
    button.append(row, bar);
    button.addEventListener("click", () => { current.chosen = i; draw(); });
    li.append(button);
    return li;
  }));
  const q = answer.quality;
  $("verdict").className = answer.suspicious ? "bad" : "good";
  $("verdict").textContent = answer.suspicious ? "Suspicious: " + answer.flags.map((f) => reasons[f] || f).join("; ") + "." : "Nothing suspicious.";
  $("quality").replaceChildren(...[
    ["confidence drop", q.confidence_drop.toFixed(1) + " %"], ["confidence increase", q.confidence_increase.toFixed(1) + " %"],
    ["concentration", q.concentration.toFixed(2)], ["coverage", percent(q.coverage)],
  ].flatMap(([name, value]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value;
    return [dt, dd];
  }));
  $("comparison").replaceChildren(...answer.predictions.map((p, i) => {
    const figure = document.createElement("figure"), canvas = document.createElement("canvas"), caption = document.createElement("figcaption");
    canvas.width = canvas.height = side;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", "where the model looks for " + p.class);
    overlay(canvas, entry.picture, entry.maps[i], 0.5);
    caption.textContent = `${p.class}, ${percent(p.confidence)}` + (empty(answer.maps[i]) ? ": nothing here speaks for it" : "");
    figure.append(canvas, caption);
    return figure;
  }));
  const m = answer.model;
  $("about").textContent = `${m.architecture}, ${m.classes.length} classes, ${m.image_size} px, ${entry.checkpoint}; ${answer.milliseconds.toFixed(0)} ms`;
  $("result").hidden = false;
  draw();
}

function remember(entry) {
  past.unshift(entry);
  past.splice(24);
  $("past").hidden = false;
  $("history").replaceChildren(...past.map((x) => {
    const li = document.createElement("li"), button = document.createElement("button"), img = document.createElement("img");
    button.type = "button";
    img.src = x.picture.src;
    img.alt = "";
    button.append(img, `${x.name}: ${x.answer.predictions[0].class}`);
    button.addEventListener("click", () => { fail(""); show(x); $("said").focus(); });
    li.append(button);
    return li;
  }));
}

function fail(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

async function ask(file) {
  const turn = ++asked;
  fail("");
  $("busy").hidden = false;
  const checkpoint = $("checkpoint").value;
  try {
    const form = new FormData();
    form.append("image", file, file.name);
    const response = await fetch("api/predict?" + new URLSearchParams({ checkpoint, top_k: 5 }), { method: "POST", body: form });
    const answer = await response.json().catch(() => ({ error: `the server answered with ${response.status}` }));
    if (turn !== asked) return;
    if (!response.ok) throw new Error(answer.error || `the server answered with ${response.status}`);
    const picture = new Image();
    picture.src = "data:image/jpeg;base64," + answer.image;
    await picture.decode();
    if (turn !== asked) return;
    const entry = { name: file.name, answer, picture, chosen: 0, checkpoint, maps: answer.maps.map(heat) };
    show(entry);
    remember(entry);
    $("said").focus();
  } catch (e) {
    if (turn === asked) fail(e instanceof TypeError ? "The server cannot be reached." : e.message);
  } finally {
    if (turn === asked) $("busy").hidden = true;
  }
}

async function listCheckpoints() {
  try {
    const { checkpoints, problems } = await (await fetch("api/checkpoints")).json();
    const chosen = $("checkpoint").value;
    $("checkpoint").replaceChildren(...checkpoints.map((c) => {
      const o = document.createElement("option");
      o.value = c.id;
      o.textContent = c.note ? `${c.name} (${c.note})` : c.name;
      return o;
    }));
    if (checkpoints.some((c) => c.id === chosen)) $("checkpoint").value = chosen;
    $("checkpoint").disabled = checkpoints.length === 0;
    if (checkpoints.length === 0) fail("There is no model to ask: train one, or name one with --checkpoint." + (problems ? " " + problems.join("; ") : ""));
  } catch {
    fail("The server cannot be reached.");
  }
}

$("file").addEventListener("change", () => {
  if ($("file").files.length) ask($("file").files[0]);
  $("file").value = "";
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (e) => { e.preventDefault(); $("drop").classList.add("over"); });
}
for (const kind of ["dragleave", "drop"]) {
  document.addEventListener(kind, (e) => { e.preventDefault(); $("drop").classList.remove("over"); });
}
document.addEventListener("drop", (e) => { if (e.dataTransfer && e.dataTransfer.files.length) ask(e.dataTransfer.files[0]); });
document.addEventListener("paste", (e) => { if (e.clipboardData && e.clipboardData.files.length) ask(e.clipboardData.files[0]); });
$("opacity").addEventListener("input", () => { if (current) draw(); });
$("checkpoint").addEventListener("focus", listCheckpoints);
listCheckpoints();
