// The front page and chapter 4: two paths of gradient flow to one minimum, and what each depth makes of unit gradients.
"use strict";
(() => {
  const { COLOURS, OF_DEPTH, GREY, ink, fixed, frame, curve, dot, legend, make, spaced, range } = explore;

  // The loss is the mean of (w_i - m_i)^4 over the two weights, as on the still cover.
  const gradient = ([x, y], [m, n]) => [2 * (x - m) ** 3, 2 * (y - n) ** 3];

  // The path of the end-to-end flow of depth N: points [x, y, time], by Runge and Kutta's method in the length of the path. It ends
  // close to the minimum; and, from two layers on, close to 0, which takes the flow for ever to reach.
  function path(N, start, goal) {
    const velocity = (x, y) => {
      const [u, v] = explore.endToEnd(N, gradient([x, y], goal), x, y), size = Math.hypot(u, v);
      return [-u / size, -v / size, 1 / size];
    };
    let [x, y, t] = [...start, 0];
    const points = [[x, y, t]];
    for (let k = 0; k < 3000; k++) {
      const far = Math.hypot(x - goal[0], y - goal[1]), out = Math.hypot(x, y);
      if (far < 0.01 || (N > 1 && out < 0.002)) break;
      const h = Math.min(0.02, far / 8, N > 1 ? out / 8 : 1);
      const a = velocity(x, y), b = velocity(x + h / 2 * a[0], y + h / 2 * a[1]);
      const c = velocity(x + h / 2 * b[0], y + h / 2 * b[1]), d = velocity(x + h * c[0], y + h * c[1]);
      const step = [0, 1, 2].map((i) => h * (a[i] + 2 * b[i] + 2 * c[i] + d[i]) / 6);
      if (!step.every(Number.isFinite)) break;
      [x, y, t] = [x + step[0], y + step[1], t + step[2]];
      points.push([x, y, t]);
    }
    return points;
  }

  // Half axes of the image of the unit circle of gradients at w under the preconditioner over N, along w and across it.
  const axes = (N, x, y) => { const along = Math.hypot(x, y) ** (2 - 2 / N); return [along, along / N]; };

  function ellipses(panel, points, N) {
    const { at } = panel, length = [0];
    for (let k = 1; k < points.length; k++) length.push(length[k - 1] + Math.hypot(points[k][0] - points[k - 1][0], points[k][1] - points[k - 1][1]));
    for (const part of spaced(0, 0.92, 5)) {
      const [x, y] = points[length.findIndex((l) => l >= part * length[length.length - 1])], [along, across] = axes(N, x, y), [p, q] = at(x, y);
      const look = { fill: COLOURS[OF_DEPTH[N]], "fill-opacity": 0.25, stroke: COLOURS[OF_DEPTH[N]], "stroke-width": 1.4 };
      make("ellipse", { rx: (0.13 * along * at.unit).toFixed(1), ry: (0.13 * across * at.unit).toFixed(1), ...look,
                        transform: `translate(${p.toFixed(1)} ${q.toFixed(1)}) rotate(${(-Math.atan2(y, x) * 180 / Math.PI).toFixed(1)})` },
           make("g", { "clip-path": `url(#${panel.id})` }, panel.drawn));
    }
  }

  const point = (name, label) => ({ name, label, place: (state) => state[name], move: (state, at) => { state[name] = at; } });
  const short = (x) => fixed(x, 2);

  explore.plane = { gradient, path, axes };
  explore.figure("plane", {
    caption: "Two paths of gradient flow to one minimum, of a linear model and of the same model with redundant layers. The blue circles are gradients of unit length as they are; "
      + "the ellipses are what depth makes of them, divided by the depth. The cross marks 0.",
    question: "Drag the start, drag the minimum, turn the depth: what becomes of the ellipses close to the cross? Can you make all depths take the same path?",
    panels: [{ ratio: 0.63, least: 220, label: "Contour lines of a loss of two weights, and from a common start the paths of depth 1 and of the chosen depth to its minimum, with what each makes of a circle of unit gradients" }],
    state: { start: [0.12, 0.28], goal: [1.6, 0.8] },
    controls: [range("N", "depth", 1, 8, 1, 3)],
    handles: [{ ...point("start", "start of both paths"), look: { fill: "#333333" } }, { ...point("goal", "minimum of the loss"), look: { fill: "#ffffff" } }],
    draw([panel], { N, start, goal }) {
      frame(panel, [-0.45, 1.95], [-0.22, 1.31], { equal: true, bare: true });
      for (const level of spaced(-4, Math.log10(5), 14).map((k) => 10 ** k)) {  // |dx|^4 + |dy|^4 = 2 level
        const root = (c) => Math.sign(c) * Math.sqrt(Math.abs(c)) * (2 * level) ** 0.25;
        curve(panel, spaced(0, 2 * Math.PI, 121).map((a) => [goal[0] + root(Math.cos(a)), goal[1] + root(Math.sin(a))]),
              { ...GREY, stroke: "#b5b5b5", "stroke-width": 0.9 });
      }
      const depths = N === 1 ? [1] : [1, N], [p, q] = panel.at(0, 0);
      make("path", { d: `M${p - 7} ${q}h14M${p} ${q - 7}v14`, stroke: "#444444", "stroke-width": 1.5 }, panel.drawn);
      for (const depth of depths) {
        const points = path(depth, start, goal);
        curve(panel, points, ink(OF_DEPTH[depth]));
        ellipses(panel, points, depth);
      }
      dot(panel, goal, { r: 3, fill: "#333333" });
      legend(panel, depths.map((depth) => [OF_DEPTH[depth], `depth ${depth}`]), { right: false });
      if (N === 1) return "Depth 1 takes every gradient as it is. Turn the depth.";
      const [here, there] = [start, goal].map(([x, y]) => short(axes(N, x, y)[0]));
      return `Depth ${N}, divided by ${N}, multiplies a gradient along the ray from the cross by ${here} at the start and by ${there} at the `
        + `minimum, and a gradient across the ray by 1/${N} of that.`;
    },
  });
})();
