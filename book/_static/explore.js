// The interactive figures: each <div class="explore" data-figure="NAME"> becomes a drawing with controls. Nothing is loaded,
// nothing is remembered; without scripts the box stays empty and the still figure beside it remains. The formulas are the
// library's (tests/test_explore.py compares them in a browser).
"use strict";
(() => {
  // ---------------------------------------------------------------- formulas

  // Losses of two weights: value and gradient.
  const losses = {
    "linear": { value: (x, y) => x, gradient: () => [1, 0] },
    "least squares": { value: (x, y) => (x - 1) ** 2 / 2 + 3 * (y - 0.5) ** 2 / 2, gradient: (x, y) => [x - 1, 3 * (y - 0.5)] },
    "quartic": { value: (x, y) => (x - 1) ** 4 / 4 + (y - 0.5) ** 4 / 4, gradient: (x, y) => [(x - 1) ** 3, (y - 0.5) ** 3] },
  };

  // The end-to-end field of depth N: |w|^(2-2/N) (g + (N-1) Pr_w g).
  function field(loss, N, x, y) {
    const [g, h] = losses[loss].gradient(x, y), r2 = x * x + y * y;
    if (r2 === 0) return N === 1 ? [g, h] : [0, 0];
    const a = r2 ** (1 - 1 / N), along = (N - 1) * (g * x + h * y) / r2;
    return [a * (g + along * x), a * (h + along * y)];
  }

  // Its curl, by central differences.
  function curl(loss, N, x, y, s = 1e-4) {
    return (field(loss, N, x + s, y)[1] - field(loss, N, x - s, y)[1]
          - field(loss, N, x, y + s)[0] + field(loss, N, x, y - s)[0]) / (2 * s);
  }

  // The paper's closed curve: from -Re to -re, a half circle to re, on to Re, a half circle back; e along the gradient at 0.
  function contour(loss, r, R, pieces = 400) {
    const [g, h] = losses[loss].gradient(0, 0), turn = Math.atan2(h, g), points = [];
    const at = (radius, angle) => points.push([radius * Math.cos(angle), radius * Math.sin(angle)]);
    for (let k = 0; k < pieces; k++) at(R + (r - R) * k / pieces, turn + Math.PI);
    for (let k = 0; k < pieces; k++) at(r, turn + Math.PI - Math.PI * k / pieces);
    for (let k = 0; k < pieces; k++) at(r + (R - r) * k / pieces, turn);
    for (let k = 0; k <= pieces; k++) at(R, turn + Math.PI * k / pieces);
    return points;
  }

  // The integral of the field around it, by Simpson's rule on every chord.
  function integral(loss, N, r, R) {
    const points = contour(loss, r, R);
    let sum = 0;
    for (let k = 1; k < points.length; k++) {
      const [a, b] = points[k - 1], [c, d] = points[k];
      const dot = (v) => v[0] * (c - a) + v[1] * (d - b);
      sum += (dot(field(loss, N, a, b)) + 4 * dot(field(loss, N, (a + c) / 2, (b + d) / 2)) + dot(field(loss, N, c, d))) / 6;
    }
    return sum;
  }

  // Gradient descent on sum_i k_i (w_i - 1)^p / p, i = 1, 2, k = (1, 1/kappa), with N layers of one unit, balanced, |w| = size.
  function race(N, p, kappa, step, steps, size = 0.1) {
    const v = [size ** (1 / N) / Math.SQRT2, size ** (1 / N) / Math.SQRT2], k = [1, 1 / kappa], losses = [];
    let tail = size ** (1 / N);  // the N - 1 scalars stay equal to each other
    for (let t = 0; t <= steps; t++) {
      const outer = tail ** (N - 1), w = [outer * v[0], outer * v[1]];
      losses.push(k.reduce((sum, c, i) => sum + c * (w[i] - 1) ** p / p, 0));
      const g = k.map((c, i) => c * (w[i] - 1) ** (p - 1)), dot = g[0] * v[0] + g[1] * v[1];
      const push = N > 1 ? tail ** (N - 2) * dot : 0;
      for (const i of [0, 1]) v[i] -= step * outer * g[i];
      tail -= step * push;
    }
    return losses;
  }

  // Two scalar layers on (ab - 1)^2 / 2: the path of gradient descent, and b^2 - a^2 along it.
  function hyperbola(a, b, step, steps) {
    const path = [[a, b]];
    for (let t = 0; t < steps; t++) {
      const e = a * b - 1;
      [a, b] = [a - step * e * b, b - step * e * a];
      path.push([a, b]);
    }
    return path;
  }

  // A singular value under the flow s' = N s^(2-2/N) (goal - s), at the given times, by Runge and Kutta's method in ln s.
  function mode(N, goal, start, times) {
    const speed = (z) => N * Math.exp(z * (1 - 2 / N)) * (goal - Math.exp(z));
    const values = [];
    let z = Math.log(start), t = 0;
    for (const end of times) {
      while (t < end) {
        const h = Math.min(end - t, 0.02 / (N * goal * Math.exp(Math.max(z, Math.log(start)) * (1 - 2 / N)) + 0.01));
        const a = speed(z), b = speed(z + h * a / 2), c = speed(z + h * b / 2), d = speed(z + h * c);
        z += h * (a + 2 * b + 2 * c + d) / 6;
        t = end - t - h < 1e-12 ? end : t + h;
      }
      values.push(Math.exp(z));
    }
    return values;
  }

  // ---------------------------------------------------------------- drawing

  const W = 460, H = 300, LEFT = 46, RIGHT = 10, TOP = 12, BOTTOM = 38;
  const make = (name, attributes, parent) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return parent.appendChild(element);
  };
  const short = (x) => Math.abs(x) >= 1e4 || (x !== 0 && Math.abs(x) < 1e-3) ? x.toExponential(0) : `${+x.toPrecision(3)}`;

  // A frame with ticks; returns the map from numbers to the drawing. A range is [least, most]; log: logarithmic.
  function frame(svg, [x0, x1], [y0, y1], { x = "", y = "", logx = false, logy = false } = {}) {
    const scale = (a, b, log, from, to) => {
      const f = log ? Math.log10 : (v) => v;
      return (v) => from + (to - from) * (f(v) - f(a)) / (f(b) - f(a));
    };
    const mapx = scale(x0, x1, logx, LEFT, W - RIGHT), mapy = scale(y0, y1, logy, H - BOTTOM, TOP);
    const ticks = (a, b, log) => {
      if (log) {
        const first = Math.ceil(Math.log10(a)), last = Math.floor(Math.log10(b)), by = Math.max(1, Math.ceil((last - first) / 4));
        return Array.from({ length: Math.floor((last - first) / by) + 1 }, (_, k) => 10 ** (first + k * by));
      }
      const by = 10 ** Math.floor(Math.log10((b - a) / 6)), n = by * [1, 2, 5, 10].find((m) => (b - a) / (by * m) <= 6);
      return Array.from({ length: Math.floor(b / n) - Math.ceil(a / n) + 1 }, (_, k) => (Math.ceil(a / n) + k) * n);
    };
    make("rect", { x: LEFT, y: TOP, width: W - LEFT - RIGHT, height: H - TOP - BOTTOM, class: "frame" }, svg);
    for (const v of ticks(x0, x1, logx)) {
      make("text", { x: mapx(v), y: H - BOTTOM + 15, "text-anchor": "middle" }, svg).textContent = short(v);
    }
    for (const v of ticks(y0, y1, logy)) {
      make("line", { x1: LEFT, x2: W - RIGHT, y1: mapy(v), y2: mapy(v), class: "grid" }, svg);
      make("text", { x: LEFT - 5, y: mapy(v) + 4, "text-anchor": "end" }, svg).textContent = short(v);
    }
    make("text", { x: (LEFT + W - RIGHT) / 2, y: H - 6, "text-anchor": "middle" }, svg).textContent = x;
    make("text", { x: -(TOP + H - BOTTOM) / 2, y: 11, "text-anchor": "middle", transform: "rotate(-90)" }, svg).textContent = y;
    return (a, b) => [mapx(a), mapy(b)];
  }

  function curve(svg, at, points, kind) {
    const inside = points.filter(([a, b]) => Number.isFinite(a) && Number.isFinite(b)).map(([a, b]) => at(a, b));
    const d = inside.map(([a, b], k) => `${k ? "L" : "M"}${a.toFixed(1)} ${Math.min(Math.max(b, -H), 2 * H).toFixed(1)}`)
      .join("");
    return make("path", { d, class: `curve ${kind}`, "clip-path": "url(#explore-clip)" }, svg);
  }

  // The names of curves below each other, each with a piece of its line.
  function legend(svg, names, x = W - 150, top = TOP) {
    names.forEach(([kind, name], k) => {
      const y = top + 14 + 15 * k;
      make("path", { d: `M${x} ${y - 4}H${x + 28}`, class: `curve ${kind}` }, svg);
      make("text", { x: x + 34, y }, svg).textContent = name;
    });
  }

  const range = (name, label, least, most, by, start, show = short) => ({ name, label, least, most, by, start, show });
  const choice = (name, label, values, start) => ({ name, label, values, start });
  const power = (k) => short(10 ** k);

  const figures = {
    // (a) the field, its curl and the integral that refuses to be 0
    field: {
      label: "The end-to-end field of two weights, its curl as shade, the paper's curve and the integral around it",
      controls: [choice("loss", "loss", Object.keys(losses), "linear"), range("N", "depth", 1, 10, 1, 3),
                 range("r", "inner radius", 0.1, 0.9, 0.05, 0.5), range("R", "outer radius", 1, 2, 0.05, 1.5)],
      draw(svg, { loss, N, r, R }) {
        const side = 2.3, ratio = (W - LEFT - RIGHT) / (H - TOP - BOTTOM);
        const at = frame(svg, [-side * ratio, side * ratio], [-side, side], { x: "first weight", y: "second weight" });
        const nx = 24, ny = 15, cells = [];
        for (let i = 0; i < nx; i++) {
          for (let j = 0; j < ny; j++) {
            const x = side * ratio * ((2 * i + 1) / nx - 1), y = side * ((2 * j + 1) / ny - 1);
            cells.push([x, y, field(loss, N, x, y), curl(loss, N, x, y)]);
          }
        }
        const strongest = Math.max(...cells.map((c) => Math.abs(c[3])));
        const longest = Math.max(...cells.map((c) => Math.hypot(...c[2])));
        for (const [x, y, v, c] of cells) {
          const [a, b] = at(x, y), w = (W - LEFT - RIGHT) / nx, h = (H - TOP - BOTTOM) / ny, size = Math.hypot(...v) / longest;
          if (strongest > 1e-6) {
            make("rect", { x: a - w / 2, y: b - h / 2, width: w, height: h, class: c > 0 ? "plus" : "minus",
                           "fill-opacity": (0.75 * Math.sqrt(Math.abs(c) / strongest)).toFixed(2) }, svg);
          }
          const length = 11 * Math.sqrt(size) / (Math.hypot(...v) || 1), [p, q] = [a + v[0] * length, b - v[1] * length];
          make("path", { d: `M${a.toFixed(1)} ${b.toFixed(1)}L${p.toFixed(1)} ${q.toFixed(1)}`, class: "arrow" }, svg);
          make("circle", { cx: a.toFixed(1), cy: b.toFixed(1), r: 1.2, class: "dot" }, svg);
        }
        curve(svg, at, contour(loss, r, R, 60), "first");
        const sum = integral(loss, N, r, R);
        return `Depth ${N}: the integral around the curve is ${Math.abs(sum) < 1e-4 ? "0" : sum.toFixed(3)}.`
          + (Math.abs(sum) >= 1e-4 ? " So the field is the gradient of nothing." : N > 1 ? " This curve sees nothing." : "");
      },
    },

    // (b) the race against depth
    race: {
      label: "Loss against steps of gradient descent for one layer and for a deeper network of the same step",
      controls: [range("N", "depth of the second runner", 2, 8, 1, 2), choice("p", "power of the loss", ["2", "4", "6"], "4"),
                 range("kappa", "conditioning", 0, 2, 0.25, 1.5, power), range("step", "step", -2.5, 0.25, 0.05, -0.5, power)],
      draw(svg, { N, p, kappa, step }) {
        const steps = 3000, runs = [1, N].map((depth) => race(depth, +p, 10 ** kappa, 10 ** step, steps));
        const at = frame(svg, [1, steps], [1e-8, 1], { x: "step", y: "loss", logx: true, logy: true });
        runs.forEach((losses, k) => {
          const shown = losses.map((loss, t) => [t, loss]).filter(([t]) => t > 0 && (t < 100 || t % 10 === 0));
          const end = shown.findIndex(([, loss]) => !(loss < 1e3));
          curve(svg, at, (end < 0 ? shown : shown.slice(0, end)).map(([t, loss]) => [t, Math.max(loss, 1e-12)]),
                ["first", "second"][k]);
        });
        legend(svg, [["first", "depth 1"], ["second", `depth ${N}`]]);
        const said = runs.map((losses) => {
          const there = losses.findIndex((loss) => loss < 1e-4);
          if (!(losses[steps] < 1e3)) return "diverges";
          return there < 0 ? `is at ${short(losses[steps])} after ${steps}` : `needs ${there} steps`;
        });
        return `To the loss 0.0001 depth 1 ${said[0]}, depth ${N} ${said[1]}.`;
      },
    },

    // (c) two scalar layers on their hyperbola
    hyperbola: {
      label: "Two scalar layers descending to the curve of minima, and the hyperbola that gradient flow would follow",
      controls: [range("a", "first layer, v", -1.5, 2, 0.05, -1), range("b", "second layer, u", -1.5, 2, 0.05, 1.4),
                 range("step", "step", -2, 0.2, 0.05, -0.6, power)],
      draw(svg, { a, b, step }) {
        const span = [-1.7, 2.5], at = frame(svg, span, span, { x: "first layer, v", y: "second layer, u" });
        const along = Array.from({ length: 201 }, (_, k) => span[0] + (span[1] - span[0]) * k / 200), Q = b * b - a * a;
        for (const sign of [1, -1]) {
          curve(svg, at, along.filter((x) => sign * x > 0.05).map((x) => [x, 1 / x]), "goal");
          const branch = Q >= 0 ? along.map((x) => [x, sign * Math.sqrt(Q + x * x)])
            : along.map((y) => [sign * Math.sqrt(y * y - Q), y]);
          curve(svg, at, branch, "flow");
        }
        const path = hyperbola(a, b, 10 ** step, 400), [c, d] = path[path.length - 1];
        curve(svg, at, path, "first");
        for (const [x, y] of path.slice(0, 60)) {
          const [p, q] = at(x, y);
          if (Number.isFinite(p + q) && p > LEFT && p < W - RIGHT && q > TOP && q < H - BOTTOM) {
            make("circle", { cx: p.toFixed(1), cy: q.toFixed(1), r: 2, class: "step" }, svg);
          }
        }
        legend(svg, [["first", "descent"], ["flow", "the flow's hyperbola"], ["goal", "minima"]], W - 170, H - BOTTOM - 54);
        return Number.isFinite(c * d) && Math.abs(c * d) < 1e6
          ? `The imbalance D = u\u00b2 - v\u00b2 goes from ${Q.toFixed(3)} to ${(d * d - c * c).toFixed(3)} in 400 steps; `
            + `the product ends at ${(c * d).toFixed(3)}.`
          : `The imbalance D = u\u00b2 - v\u00b2 starts at ${Q.toFixed(3)}; the run diverges.`;
      },
    },

    // (d) singular values, one after another
    modes: {
      label: "Three singular values on their way to 4, 2 and 1 under gradient flow from a small balanced start",
      controls: [range("N", "depth", 1, 6, 1, 2), range("start", "start", -4, -0.5, 0.25, -3, power)],
      draw(svg, { N, start }) {
        const s = 10 ** start, goals = [4, 2, 1];
        const wait = N === 1 ? 5 : N === 2 ? Math.log(9 / s) / 2 : s ** (2 / N - 1) / (N - 2) + 3, until = 1.15 * wait;
        const times = Array.from({ length: 240 }, (_, k) => until * (k + 1) / 240);
        const at = frame(svg, [0, until], [0, 4.4], { x: "time", y: "singular value" });
        const kinds = ["first", "second", "third"], found = goals.map((goal) => mode(N, goal, s, times));
        found.forEach((values, k) => curve(svg, at, times.map((t, i) => [t, values[i]]), kinds[k]));
        legend(svg, kinds.map((kind, k) => [kind, `to ${goals[k]}`]), LEFT + 8);
        const half = found.map((values, k) => times[values.findIndex((v) => v >= goals[k] / 2)]);
        const rest = found[1][found[0].findIndex((v) => v >= 2)];
        return `Half of the goal at the times ${half.map((t) => t === undefined ? "later" : t.toPrecision(3)).join(", ")}. `
          + `When the first is there, the second has reached ${(50 * rest).toFixed(1)} % of its own.`;
      },
    },
  };

  // ---------------------------------------------------------------- the boxes

  function build(box) {
    const figure = figures[box.dataset.figure], state = {}, id = `explore-${box.dataset.figure}`;
    const svg = make("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": figure.label }, box);
    const controls = box.appendChild(document.createElement("div")), said = box.appendChild(document.createElement("p"));
    controls.className = "controls";
    said.setAttribute("aria-live", "polite");
    const redraw = () => {
      svg.textContent = "";
      const clip = make("clipPath", { id: "explore-clip" }, make("defs", {}, svg));
      make("rect", { x: LEFT, y: TOP, width: W - LEFT - RIGHT, height: H - TOP - BOTTOM }, clip);
      said.textContent = figure.draw(svg, state);
    };
    for (const control of figure.controls) {
      const label = controls.appendChild(document.createElement("label")), output = document.createElement("output");
      label.append(`${control.label} `, ...(control.values ? [] : [output]));
      const input = label.appendChild(document.createElement(control.values ? "select" : "input"));
      input.id = `${id}-${control.name}`;
      if (control.values) {
        for (const value of control.values) input.appendChild(new Option(value, value, false, value === control.start));
      } else {
        Object.assign(input, { type: "range", min: control.least, max: control.most, step: control.by, value: control.start });
      }
      const read = () => {
        state[control.name] = control.values ? input.value : +input.value;
        if (!control.values) {
          output.textContent = control.show(state[control.name]);
          input.setAttribute("aria-valuetext", output.textContent);
        }
      };
      input.addEventListener("input", () => { read(); redraw(); });
      read();
    }
    redraw();
  }

  window.explore = { losses, field, curl, contour, integral, race, hyperbola, mode };
  document.querySelectorAll("div.explore").forEach(build);
})();
