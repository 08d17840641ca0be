// What a person keeps of an answer: a panel as PNG, the answer as JSON. Both are
// made here; nothing is sent.
import { side, covered, overlay } from "./heat.js";

const margin = 16, heading = 58, footing = 44;
export const percent = (v) => (100 * v).toFixed(1) + "\u00a0%"; // they stay on one line

function fit(c, text, room) {
  if (c.measureText(text).width <= room) return text;
  let cut = [...text];
  while (cut.length > 1 && c.measureText(cut.join("") + "…").width > room) cut.pop();
  return cut.join("") + "…";
}

// panel draws original, overlay and predictions on white paper, for documents.
export function panel(entry, notes) {
  const canvas = document.createElement("canvas"), c = canvas.getContext("2d");
  canvas.width = 3 * side + 4 * margin;
  canvas.height = heading + side + footing;
  const text = (font, colour, x, y, room, s) => {
    c.font = font;
    c.fillStyle = colour;
    c.fillText(fit(c, s, room), x, y);
  };
  c.fillStyle = "#fff";
  c.fillRect(0, 0, canvas.width, canvas.height);
  const { answer, chosen } = entry, best = answer.predictions[0];
  text("bold 17px sans-serif", "#222", margin, 25, canvas.width - 2 * margin, `${best.class}, ${percent(best.confidence)}   ${entry.name}`);
  c.drawImage(entry.image, margin, heading, side, side);
  const over = document.createElement("canvas");
  over.width = over.height = side;
  overlay(over, entry.image, entry.maps[chosen], covered);
  c.drawImage(over, 2 * margin + side, heading);
  const x = 3 * margin + 2 * side, row = Math.min(side / answer.predictions.length, 52);
  text("13px sans-serif", "#6e6e6e", margin, heading - 8, side, "original");
  text("13px sans-serif", "#6e6e6e", 2 * margin + side, heading - 8, side, "heat map for " + answer.predictions[chosen].class);
  text("13px sans-serif", "#6e6e6e", x, heading - 8, side, "predictions");
  answer.predictions.forEach((p, i) => {
    const y = heading + i * row, value = percent(p.confidence);
    text("12px sans-serif", "#222", x, y + 12, side - 60, p.class);
    c.fillText(value, x + side - c.measureText(value).width, y + 12);
    c.fillStyle = "#e8ecf0";
    c.fillRect(x, y + 17, side, row - 26);
    c.fillStyle = "#0072b2";
    c.fillRect(x, y + 17, side * p.confidence, row - 26);
  });
  const m = answer.model;
  text("12px sans-serif", "#6e6e6e", margin, heading + side + 18, canvas.width - 2 * margin, notes);
  text("12px sans-serif", "#6e6e6e", margin, heading + side + 34, canvas.width - 2 * margin, `${m.architecture}, ${m.image_size} px, ${entry.checkpoint}`);
  return canvas;
}

// record is an answer without its image and colours.
export function record(entry) {
  const { image, scale, ...answer } = entry.answer;
  return JSON.stringify({ name: entry.name, checkpoint: entry.checkpoint, ...answer }, null, 2) + "\n";
}

// save hands a file to the person.
export function save(blob, name) {
  const a = document.createElement("a");
  a.href = URL.createObjectURL(blob);
  a.download = name;
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 60000);
}
