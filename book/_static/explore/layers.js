// Chapter 3: three layers of two units beside the end-to-end rule from the same product.
"use strict";
(() => {
  const { GREY, ink, fixed, short, frame, curve, dot, legend, spaced, range, power } = explore;

  // Matrices of two rows and columns, as [a, b, c, d].
  const product = ([a, b, c, d], [e, f, g, h]) => [a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h];
  const turned = ([a, b, c, d]) => [a, c, b, d];
  const plus = (A, B, by = 1) => A.map((x, i) => x + by * B[i]);
  const times = (c, A) => A.map((x) => c * x);
  const size = (A) => Math.hypot(...A);
  const rotation = (angle) => [Math.cos(angle), -Math.sin(angle), Math.sin(angle), Math.cos(angle)];
  const singular = (A) => {  // the larger first
    const sum = A.reduce((s, x) => s + x * x, 0), det = Math.abs(A[0] * A[3] - A[1] * A[2]), root = Math.sqrt(Math.max(0, sum * sum - 4 * det * det));
    const first = Math.sqrt((sum + root) / 2);
    return [first, first > 0 ? det / first : 0];
  };

  // A symmetric positive semidefinite matrix to a power; power 0 is the identity.
  function raised([a, b, , d], power) {
    if (power === 0) return [1, 0, 0, 1];
    const angle = Math.atan2(2 * b, a - d) / 2, mid = (a + d) / 2, half = Math.hypot((a - d) / 2, b), Q = rotation(angle);
    const [x, y] = [mid + half, Math.max(0, (a * d - b * b) / (mid + half) || 0)].map((value) => Math.max(0, value) ** power);
    return product(product(Q, [x, 0, 0, y]), turned(Q));
  }

  // The operator of the end-to-end rule: sum_j (W W^T)^((j-1)/N) G (W^T W)^((N-j)/N).
  function operator(W, G, N) {
    const left = product(W, turned(W)), right = product(turned(W), W);
    let sum = [0, 0, 0, 0];
    for (let j = 1; j <= N; j++) sum = plus(sum, product(product(raised(left, (j - 1) / N), G), raised(right, (N - j) / N)));
    return sum;
  }

  // The goal; the loss is half the square of the distance to it.
  const GOAL = product(product(rotation(0.5), [1.5, 0, 0, 0.7]), rotation(-0.1));

  // Three layers whose product has the singular values start and 0.6 start: balanced, then the first times tilt, the second over it.
  function layersOf(start, tilt) {
    const roots = [Math.cbrt(start), 0, 0, Math.cbrt(0.6 * start)], angles = [-0.9, 0.4, 1.3, 0.2];
    const layers = [0, 1, 2].map((j) => product(product(rotation(angles[j + 1]), roots), rotation(-angles[j])));
    return [times(tilt, layers[0]), times(1 / tilt, layers[1]), layers[2]];
  }
  const imbalance = ([A, B, C]) => [plus(product(turned(B), B), product(A, turned(A)), -1), plus(product(turned(C), C), product(B, turned(B)), -1)];

  // Gradient descent on the layers, and the rule from their product: what both are after each of some steps.
  function train(start, tilt, step, steps) {
    let layers = layersOf(start, tilt), rule = product(layers[2], product(layers[1], layers[0]));
    const run = [];
    for (let t = 0; t <= steps; t++) {
      const [A, B, C] = layers, net = product(C, product(B, A)), G = plus(net, GOAL, -1), H = plus(rule, GOAL, -1);
      run.push({ net, rule, losses: [G, H].map((D) => size(D) ** 2 / 2), apart: size(plus(net, rule, -1)), imbalance: imbalance(layers).map(size) });
      const CB = product(C, B), BA = product(B, A);
      layers = [plus(A, product(turned(CB), G), -step), plus(B, product(product(turned(C), G), turned(A)), -step), plus(C, product(G, turned(BA)), -step)];
      rule = plus(rule, operator(rule, H, 3), -step);
    }
    return run;
  }

  const UNTIL = 16;  // steps times their size
  const known = {};  // playing changes the time alone
  const remembered = (...which) => {
    if (known.which !== `${which}`) Object.assign(known, { which: `${which}`, run: train(...which, Math.round(UNTIL / which[2])) });
    return known.run;
  };
  const image = (W) => spaced(0, 2 * Math.PI, 73).map((a) => [W[0] * Math.cos(a) + W[1] * Math.sin(a), W[2] * Math.cos(a) + W[3] * Math.sin(a)]);

  explore.layers = { operator, layersOf, imbalance, train, singular, GOAL };
  explore.figure("layers", {
    question: "At tilt 1, how large a step does it take until you see two curves? And how small a tilt separates them at every step?",
    least: "17rem",
    panels: [{ ratio: 0.62, label: "The image of the unit circle under the product of three layers, under the matrix of the end-to-end rule, and under the goal" },
             { ratio: 0.62, label: "Loss of the layers and of the rule against time" },
             { ratio: 0.62, label: "Singular values of the product and of the rule's matrix against time" },
             { ratio: 0.62, label: "Norms of the two imbalances of the layers against time" }],
    controls: [{ ...range("time", "time", 0, 1, 0.005, 1, (t) => fixed(t * UNTIL, 1)), play: 5 },
               range("tilt", "tilt: first layer times, second over", 1, 3, 0.05, 1), range("start", "size of the start", -3, 0, 0.1, -1.5, power),
               range("step", "step", -2, -0.5, 0.05, -1.7, power)],
    draw([shape, loss, values, norms], { time, tilt, start, step }) {
      const run = remembered(10 ** start, tilt, 10 ** step), last = Math.round(time * (run.length - 1)), until = UNTIL, now = run[last];
      const every = Math.max(1, Math.floor(run.length / 300)), shown = run.map((at, t) => [t * 10 ** step, at]).filter((_, t) => t <= last && t % every === 0);
      const line = (panel, what, style) => curve(panel, shown.map(([t, at]) => [t, what(at)]), style);
      frame(shape, [-1.6, 1.6], [-1.6, 1.6], { equal: true, bare: true });
      curve(shape, image(GOAL), { ...GREY, "stroke-width": 4, stroke: "#c0c0c0" });
      curve(shape, image(now.net), 0);
      curve(shape, image(now.rule), 1);
      frame(loss, [0, until], [1e-6, 4], { x: "time (steps times their size)", y: "loss", logy: true });
      [0, 1].forEach((k) => line(loss, (at) => Math.max(at.losses[k], 1e-12), k));
      frame(values, [0, until], [0, 1.8], { x: "time", y: "singular values" });
      for (const s of singular(GOAL)) curve(values, [[0, s], [until, s]], { ...GREY, stroke: "#c0c0c0", "stroke-width": 2 });
      [0, 1].forEach((k) => {
        line(values, (at) => singular(at.net)[k], 0);
        line(values, (at) => singular(at.rule)[k], 1);
      });
      const top = Math.max(0.1, 1.1 * Math.max(...run.map((at) => Math.max(...at.imbalance)).filter(Number.isFinite)));
      frame(norms, [0, until], [0, Math.min(top, 20)], { x: "time", y: "size of the imbalance" });
      [0, 1].forEach((k) => line(norms, (at) => at.imbalance[k], ink(k ? 6 : 0)));
      legend(shape, [[0, "three layers"], [1, "the rule"], [{ ...GREY, stroke: "#c0c0c0", "stroke-width": 4 }, "the goal"]], { right: false });
      legend(norms, [[0, "|D\u2081|"], [6, "|D\u2082|"]]);
      const apart = Math.max(...run.map((at) => at.apart)), [first, end] = [run[0], run[run.length - 1]].map((at) => Math.max(...at.imbalance));
      if (!(apart < 1e3)) return "At this step one of the two diverges.";
      return `Layers and rule are at most ${fixed(apart)} apart. The larger imbalance is ${fixed(first)} at the start and ${fixed(end)} at the end.`;
    },
  });
})();
