// Chapter 14: singular values that are learned one after another.
"use strict";
(() => {
  const { frame, curve, legend, range, power } = explore;

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

  explore.mode = mode;
  explore.figure("modes", {
    question: "How small must the start be until each value waits for the one before it, at depth 2 and at depth 3?",
    panels: [{ ratio: 0.5, label: "Three singular values on their way to 4, 2 and 1 under gradient flow from a small balanced start" }],
    controls: [range("N", "depth", 1, 6, 1, 2), range("start", "start", -4, -0.5, 0.25, -3, power)],
    draw([panel], { N, start }) {
      const s = 10 ** start, goals = [4, 2, 1];
      const wait = N === 1 ? 5 : N === 2 ? Math.log(9 / s) / 2 : s ** (2 / N - 1) / (N - 2) + 3, until = 1.15 * wait;
      const times = Array.from({ length: 240 }, (_, k) => until * (k + 1) / 240);
      frame(panel, [0, until], [0, 4.4], { x: "time", y: "singular value" });
      const found = goals.map((goal) => mode(N, goal, s, times));
      found.forEach((values, k) => curve(panel, times.map((t, i) => [t, values[i]]), k));
      legend(panel, goals.map((goal, k) => [k, `to ${goal}`]), { right: false });
      const half = found.map((values, k) => times[values.findIndex((v) => v >= goals[k] / 2)]);
      const rest = found[1][found[0].findIndex((v) => v >= 2)];
      return `Half of the goal at the times ${half.map((t) => t === undefined ? "later" : t.toPrecision(3)).join(", ")}. `
        + `When the first is halfway, the second has reached ${(50 * rest).toFixed(1)} % of its goal.`;
    },
  });
})();
