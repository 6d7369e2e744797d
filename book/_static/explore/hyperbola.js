// Chapter 12: two scalar layers on their hyperbola, and off it.
"use strict";
(() => {
  const { COLOURS, GREY, fixed, frame, curve, dot, legend, spaced, range, power, clamp } = explore;

  // Two scalar layers v, then u, on (uv - 1)^2 / 2: the path of gradient descent.
  function hyperbola(v, u, step, steps) {
    const path = [[v, u]];
    for (let t = 0; t < steps; t++) {
      const e = u * v - 1;
      [v, u] = [v - step * e * u, u - step * e * v];
      path.push([v, u]);
    }
    return path;
  }

  explore.hyperbola = hyperbola;
  explore.figure("hyperbola", {
    question: "How small must the step be until descent stays close to the hyperbola? From which starts does it stay on it at every step?",
    panels: [{ ratio: 0.62, least: 310, label: "In the plane of the layers u and v gradient descent to the curve of minima uv = 1, and the hyperbola that gradient flow would follow" }],
    controls: [range("step", "step", -2, 0.2, 0.05, -0.6, power), range("u", "start, u", -1.5, 2, 0.05, -1), range("v", "start, v", -1.5, 2, 0.05, 1.4)],
    handles: [{ label: "start of the descent", look: { fill: "#333333" }, place: ({ u, v }) => [v, u],
                move: (state, [a, b]) => { state.v = +clamp(a, -1.5, 2).toFixed(2); state.u = +clamp(b, -1.5, 2).toFixed(2); } }],
    draw([panel], { u, v, step }) {
      frame(panel, [-1.7, 2.3], [-1.7, 2.3], { x: "second factor, v", y: "first factor, u", equal: true });
      const minima = { ...GREY, "stroke-dasharray": "7 3" }, flow = { stroke: COLOURS[1] }, descent = { stroke: "#222222", "stroke-width": 1.6 };
      const along = spaced(-4, 4, 321), Q = u * u - v * v;
      for (const sign of [1, -1]) {
        curve(panel, spaced(0.1, 8, 400).map((x) => [sign * x, sign / x]), minima);
        curve(panel, Q >= 0 ? along.map((x) => [x, sign * Math.sqrt(Q + x * x)]) : along.map((y) => [sign * Math.sqrt(y * y - Q), y]), flow);
      }
      const path = hyperbola(v, u, 10 ** step, 400), [d, c] = path[path.length - 1];
      curve(panel, path, descent);
      for (const at of path.slice(0, 60)) dot(panel, at, { r: 3, fill: "#222222" });
      legend(panel, [[descent, "descent"], [flow, "flow"], [minima, "minima"]], { right: false, bottom: true });
      return Number.isFinite(c * d) && Math.abs(c * d) < 1e6
        ? `The imbalance D = u\u00b2 \u2212 v\u00b2 goes from ${fixed(Q)} to ${fixed(c * c - d * d)} in 400 steps; the product ends at ${fixed(c * d)}.`
        : `The imbalance D = u\u00b2 \u2212 v\u00b2 starts at ${fixed(Q)}; the run diverges.`;
    },
  });
})();
