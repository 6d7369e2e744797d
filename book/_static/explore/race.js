// Chapter 7: two depths race on the problem of two feature scales, at one step for both or each at its own best.
"use strict";
(() => {
  const { GREY, COLOURS, OF_DEPTH, ink, short, frame, curve, dot, legend, write, make, range, either, power, clamp } = explore;
  const MOST = 3000, SHARED = "the same step", OWN = "the best step of each", DIRECTIONS = [30, 75, 120, 210, 300];
  const whole = (x, n) => { let value = 1; for (let k = 0; k < n; k++) value *= x; return value; };
  const goal = (p) => 2 * whole(0.2, p) / p;  // both residuals at 0.2

  // Gradient descent on ((a w_1 - 1)^p + (w_2 - 1)^p) / p with N layers, all but the first of one unit, from balanced layers with
  // |w| = 0.1 / a in a direction in degrees: a function that returns the loss at the next step each time, first that of the start.
  function runner(N, p, a, step, degrees) {
    let tail = (0.1 / a) ** (1 / N);  // the layers behind the first stay equal
    let [x, y] = [tail * Math.cos(degrees * Math.PI / 180), tail * Math.sin(degrees * Math.PI / 180)];
    return () => {
      const before = whole(tail, N - 2), outer = N > 1 ? before * tail : 1, A = a * outer * x - 1, B = outer * y - 1;
      const rest = whole(A, p - 1), rest2 = whole(B, p - 1), g = a * rest, loss = (A * rest + B * rest2) / p;
      const push = N > 1 ? before * (g * x + rest2 * y) : 0;
      [x, y, tail] = [x - step * outer * g, y - step * outer * rest2, tail - step * push];
      return loss;
    };
  }
  const race = (N, p, a, step, degrees, steps) => Array.from({ length: steps + 1 }, runner(N, p, a, step, degrees));

  // Steps to the goal, median of the five directions; infinitely many where the loss rises, there or later, within MOST steps.
  function single(N, p, a, step, degrees) {
    const next = runner(N, p, a, step, degrees), enough = goal(p);
    let before = Infinity, found = Infinity;
    for (let t = 0; t <= MOST; t++) {
      const loss = next();
      if (!(loss <= before)) return Infinity;
      if (loss <= enough && found === Infinity) found = t;
      if (loss < 1e-16) break;
      before = loss;
    }
    return found;
  }
  const count = (N, p, a, step) => DIRECTIONS.map((degrees) => single(N, p, a, step, degrees)).sort((s, t) => s - t)[2];

  // The counts at ten steps a decade, and the best of them: the first with the fewest.
  const STEPS = Array.from({ length: 46 }, (_, k) => 10 ** (k / 10 - 3.5));
  function sweep(N, p, a) {
    const counts = STEPS.map((step) => count(N, p, a, step)), fewest = Math.min(...counts);
    return { counts, fewest, best: fewest < Infinity ? STEPS[counts.indexOf(fewest)] : NaN };
  }
  const known = {};  // turning the step alone sweeps nothing again
  const remembered = (...which) => known[which] || (known[which] = sweep(...which));

  function losses(panel, depths, p, a, steps) {
    frame(panel, [1, MOST], [goal(p) / 30, 3], { x: "steps", y: "loss", logx: true, logy: true });
    curve(panel, [[1, goal(p)], [MOST, goal(p)]], { ...GREY, "stroke-dasharray": "2 3" });
    depths.forEach((depth, k) => DIRECTIONS.forEach((degrees) => {
      const run = race(depth, p, a, steps[k], degrees, MOST).map((loss, t) => [t, loss]).filter(([t]) => t > 0 && (t < 100 || t % 10 === 0));
      const end = run.findIndex(([, loss]) => !(loss < 1e3));
      curve(panel, end < 0 ? run : run.slice(0, end), { ...ink(OF_DEPTH[depth]), "stroke-width": 1.5 });
    }));
    legend(panel, depths.map((depth) => [OF_DEPTH[depth], `depth ${depth}`]), { right: false, bottom: true });
  }

  function strip(panel, depths, found, step, own) {
    frame(panel, [STEPS[0], STEPS[STEPS.length - 1]], [3, MOST], { x: "size of the step", y: "steps to the goal", logx: true, logy: true });
    if (!own) curve(panel, [[step, 1], [step, 1e5]], { ...GREY, stroke: "#333333" });
    found.forEach(({ counts, fewest, best }, k) => {
      curve(panel, counts.map((n, i) => [STEPS[i], n]), ink(OF_DEPTH[depths[k]]));
      if (!(fewest < Infinity)) return;
      const colour = COLOURS[OF_DEPTH[depths[k]]], [p, q] = panel.at(best, fewest), left = p > panel.W - 95;
      make("path", { d: `M${p.toFixed(1)} ${(q - 8).toFixed(1)}l7 8l-7 8l-7 -8z`, fill: own ? colour : "#ffffff", stroke: colour, "stroke-width": 2 }, panel.drawn);
      write(panel, left ? p - 12 : p + 12, q + 4, `${fewest} steps`, { "text-anchor": left ? "end" : "start", class: "name" });
    });
  }

  explore.race = { race, count, sweep, STEPS, DIRECTIONS };
  explore.figure("race", {
    question: "Race at the same step, then each at its own best step. Who gains from its own step, and what changes at power 2?",
    least: "19rem",
    panels: [{ ratio: 0.85, label: "Loss against steps of gradient descent, from five starts, for one layer and for a deeper network" },
             { ratio: 0.85, label: "Steps that each depth needs against the size of the step, with the best of each marked" }],
    controls: [either("mode", "race at", [SHARED, OWN], OWN), either("p", "power of the loss", ["2", "4"], "4"),
               range("N", "depth of the second runner", 2, 8, 1, 2), range("a", "ratio of the features", 0, 4, 0.5, 3, (k) => short(2 ** k)),
               range("step", "step, if it is the same", -3.5, 1, 0.1, -1.5, power)],
    handles: [{ panel: 1, label: "the same step for both", look: { fill: "#333333" }, hidden: ({ mode }) => mode === OWN,
                place: ({ step }) => [10 ** step, 4], say: ({ step }) => power(step),
                move: (state, [a]) => { state.step = clamp(Math.round(10 * Math.log10(a)) / 10, -3.5, 1); } }],
    draw([above, below], { mode, N, p, a, step }) {
      const depths = [1, N], ratio = 2 ** a, found = depths.map((depth) => remembered(depth, +p, ratio)), own = mode === OWN;
      const used = found.map(({ best }) => own ? best : 10 ** step), needed = depths.map((depth, k) => count(depth, +p, ratio, used[k]));
      losses(above, depths, +p, ratio, used);
      strip(below, depths, found, 10 ** step, own);
      if (!own) depths.forEach((depth, k) => dot(below, [10 ** step, needed[k]], { r: 5, fill: COLOURS[OF_DEPTH[depth]] }));
      const says = depths.map((depth, k) => needed[k] < Infinity ? `depth ${depth} needs ${needed[k]} steps` : `of depth ${depth} most starts do not arrive, or their loss rises`);
      const [one, two] = needed, both = one < Infinity && two < Infinity;
      const verdict = !both ? "" : one === two ? " A draw." : one < two ? ` Depth ${N} is slower, by a factor of ${short(two / one)}.`
        : ` Depth ${N} is faster, by a factor of ${short(one / two)}.`;
      return `${own ? `Each at its own best step, ${used.map(short).join(" and ")}` : `Both at the step ${short(10 ** step)}`}: ${says.join(", ")} (medians of five starts).${verdict}`;
    },
  });
})();
