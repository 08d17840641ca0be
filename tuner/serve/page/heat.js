// Heat maps drawn from an answer's numbers: the slider, the choice of a class and
// the comparison cost no request.
export const side = 280; // of a canvas, in pixels
export const covered = 0.6; // of the image by the strongest places of a map, as in panels

// scale is an answer's colours: 256 times red, green, blue, alpha, as the panels of
// `atelier infer` have them. Weak places hide nothing of the image.
export function scale(answer) {
  return Uint8Array.from(atob(answer.scale), (c) => c.charCodeAt(0));
}

// heat stretches a map over the image: bilinear, half-pixel centres.
export function heat(map, colours) {
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
      const c = 4 * Math.round(255 * Math.min(Math.max(top * (1 - v) + low * v, 0), 1));
      image.data.set([colours[c], colours[c + 1], colours[c + 2], colours[c + 3]], 4 * (y * side + x));
    }
  }
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// overlay lays a map over an image; opacity is the share of its strongest places.
export function overlay(canvas, image, map, opacity) {
  const c = canvas.getContext("2d");
  c.globalAlpha = 1;
  c.drawImage(image, 0, 0, side, side);
  c.globalAlpha = opacity;
  c.drawImage(map, 0, 0);
  c.globalAlpha = 1;
}

// empty: Grad-CAM keeps the evidence for a class alone, which may be nothing.
export const empty = (map) => map.values.every((v) => v < 1e-6);
