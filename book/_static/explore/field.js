// Chapter 5: the end-to-end field of two weights, its curl, and the integral around the paper's curve that refuses to be 0.
"use strict";
(() => {
  const { COLOURS, clamp, fixed, frame, curve, head, make, spaced, range, choice } = explore;

  // Gradients of losses of two weights.
  const losses = {
    "linear": () => [1, 0],
    "least squares": (x, y) => [x - 1, 3 * (y - 0.5)],
    "quartic": (x, y) => [(x - 1) ** 3, (y - 0.5) ** 3],
  };
  const field = (loss, N, x, y) => explore.endToEnd(N, losses[loss](x, y), x, y);

  // Its curl, by central differences.
  function curl(loss, N, x, y, s = 1e-4) {
    return (field(loss, N, x + s, y)[1] - field(loss, N, x - s, y)[1]
          - field(loss, N, x, y + s)[0] + field(loss, N, x, y - s)[0]) / (2 * s);
  }

  // The paper's curve: from -Re to -re, a half circle to re, on to Re, a half circle back; e along the gradient at 0.
  // Each piece is a map from [0, 1].
  function contour(loss, r, R) {
    const [g, h] = losses[loss](0, 0), turn = Math.atan2(h, g);
    const at = (radius, angle) => [radius * Math.cos(angle + turn), radius * Math.sin(angle + turn)];
    return [(t) => at(R + (r - R) * t, Math.PI), (t) => at(r, Math.PI * (1 - t)), (t) => at(r + (R - r) * t, 0), (t) => at(R, Math.PI * t)];
  }

  // The integral of the field around it, by Simpson's rule on every piece.
  function integral(loss, N, r, R, pieces = 200) {
    let sum = 0;
    for (const at of contour(loss, r, R)) {
      const dot = (t) => {
        const [x, y] = at(t), [a, b] = at(t - 1e-5), [c, d] = at(t + 1e-5), [u, v] = field(loss, N, x, y);
        return (u * (c - a) + v * (d - b)) / 2e-5;
      };
      for (let k = 0; k < pieces; k++) sum += (dot(k / pieces) + 4 * dot((k + 0.5) / pieces) + dot((k + 1) / pieces)) / (6 * pieces);
    }
    return sum;
  }

  // The curl as a picture, orange where positive, blue where negative: pixels that the browser smooths.
  function shade(loss, N, [x0, x1], [y0, y1], across = 120) {
    const down = Math.round(across * (y1 - y0) / (x1 - x0)), canvas = Object.assign(document.createElement("canvas"), { width: across, height: down });
    const image = canvas.getContext("2d").createImageData(across, down), values = [];
    for (let j = 0; j < down; j++) {
      for (let i = 0; i < across; i++) values.push(curl(loss, N, x0 + (x1 - x0) * (i + 0.5) / across, y1 - (y1 - y0) * (j + 0.5) / down));
    }
    const strongest = [...values].map(Math.abs).sort((a, b) => a - b)[Math.floor(0.98 * values.length)];
    if (strongest < 1e-6) return null;
    values.forEach((value, k) => {
      const colour = COLOURS[value > 0 ? 1 : 0], part = Math.sqrt(Math.min(1, Math.abs(value) / strongest));
      for (const c of [0, 1, 2]) image.data[4 * k + c] = parseInt(colour.slice(1 + 2 * c, 3 + 2 * c), 16);
      image.data[4 * k + 3] = Math.round(165 * part);
    });
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas.toDataURL();
  }

  function arrows(panel, loss, N) {
    const { at } = panel, nx = Math.round((at.x[1] - at.x[0]) / 0.25), points = [];
    for (const x of spaced(-0.125 * (nx - 1), 0.125 * (nx - 1), nx)) {
      for (const y of spaced(-1.125, 1.125, 10)) points.push([x, y, ...field(loss, N, x, y)]);
    }
    const longest = Math.max(...points.map(([, , u, v]) => Math.hypot(u, v)));
    for (const [x, y, u, v] of points) {
      const size = Math.hypot(u, v), length = 0.23 * Math.sqrt(size / longest) * at.unit / 2;  // pixels, half of it
      if (length < 1.5) continue;
      const [p, q] = at(x, y), dx = u / size * length, dy = -v / size * length, big = Math.min(7, 1.2 * length);
      make("path", { d: `M${(p - dx).toFixed(1)} ${(q - dy).toFixed(1)}L${(p + 0.5 * dx).toFixed(1)} ${(q + 0.5 * dy).toFixed(1)}`,
                     stroke: "#555555", "stroke-width": 1.2, fill: "none" }, panel.drawn);
      head(panel, [p + dx, q + dy], dx, dy, big, "#555555");
    }
  }

  const along = (loss) => { const [g, h] = losses[loss](0, 0), size = Math.hypot(g, h); return [g / size, h / size]; };
  const radius = (name, label, least, most) => ({
    name, label, look: { fill: "#222222" },
    place: (state) => along(state.loss).map((e) => state[name] * e),
    move: (state, [a, b]) => { state[name] = +clamp(a * along(state.loss)[0] + b * along(state.loss)[1], least, most).toFixed(2); },
    say: (state) => fixed(state[name], 2),
  });

  explore.field = { losses, field, curl, contour, integral };
  explore.figure("field", {
    question: "For which depths and losses is the integral 0 wherever you drag the radii, and where does the shade vanish?",
    panels: [{ ratio: 0.6, least: 310, label: "The end-to-end field of two weights, its curl as shade, and the paper's curve with its direction" }],
    controls: [range("N", "depth", 1, 8, 1, 3), choice("loss", "loss", Object.keys(losses), "linear"),
               range("r", "inner radius", 0.1, 0.6, 0.01, 0.5), range("R", "outer radius", 0.7, 1.2, 0.01, 1)],
    handles: [radius("r", "inner radius of the curve", 0.1, 0.6), radius("R", "outer radius of the curve", 0.7, 1.2)],
    draw([panel], { loss, N, r, R }) {
      frame(panel, [-1.25, 1.25], [-1.25, 1.25], { x: "first weight", y: "second weight", equal: true });
      const { x, y } = panel.at, picture = shade(loss, N, x, y), [left, top] = panel.at(x[0], y[1]), [right, bottom] = panel.at(x[1], y[0]);
      if (picture) make("image", { href: picture, x: left, y: top, width: right - left, height: bottom - top }, panel.drawn);
      arrows(panel, loss, N);
      const pieces = contour(loss, r, R);
      curve(panel, pieces.flatMap((piece) => spaced(0, 1, 60).map(piece)), { stroke: "#222222" });
      pieces.forEach((piece, k) => {
        const [p, q] = panel.at(...piece([0.6, 0.5, 0.6, 0.3][k])), [s, t] = panel.at(...piece([0.59, 0.49, 0.59, 0.29][k]));
        head(panel, [p, q], p - s, q - t, 13, "#222222");
      });
      const sum = integral(loss, N, r, R), none = Math.abs(sum) < 1e-4;
      return `Depth ${N}: the integral around the curve is ${none ? "0" : fixed(sum)}.`
        + (!none ? " So the field is the gradient of nothing." : N === 1 ? " The field is the gradient of the loss." : " This curve sees nothing.");
    },
  });
})();
