// Chapter 10: the total loss that the tutorial prints, with the penalty's share in it weighed by hand.
"use strict";
(() => {
  const { frame, curve, legend, range, either } = explore;
  const TOTAL = "data + penalty", DATA = "data", PENALTY = "penalty", FULL = 5e-4, HALVES = 10;

  // From the record mnist-penalties: means over the hundred batches that end at a step, of the penalty at its full weight too,
  // medians of five seeds (tests/claims/test_10_convnet.py).
  const RECORD = {
    "steps": [100, 130, 164, 202, 244, 289, 339, 393, 450, 511, 577, 646, 719, 796, 878, 963, 1051, 1144, 1241, 1342, 1447, 1555, 1668, 1784,
      1904, 2029, 2157, 2289, 2425, 2565, 2709, 2857, 3009, 3165, 3324, 3488, 3655, 3827, 4002, 4182, 4365, 4552, 4743, 4938, 5137,
      5340, 5547, 5758, 5972, 6191, 6413, 6640, 6870, 7105, 7343, 7585, 7831, 8081, 8335, 8593],
    "original": {
      "data": [1.02, 0.464, 0.349, 0.291, 0.221, 0.175, 0.159, 0.166, 0.157, 0.144, 0.132, 0.131, 0.14, 0.118, 0.0901, 0.0991, 0.0893, 0.0759,
        0.0776, 0.0797, 0.0759, 0.0796, 0.0674, 0.0655, 0.0612, 0.0488, 0.0521, 0.0636, 0.061, 0.0434, 0.0494, 0.0445, 0.0498,
        0.0471, 0.0458, 0.045, 0.0353, 0.0386, 0.0399, 0.0411, 0.0353, 0.0305, 0.0323, 0.0336, 0.027, 0.028, 0.0283, 0.0298, 0.0273,
        0.0229, 0.0249, 0.0266, 0.0226, 0.0208, 0.0237, 0.0258, 0.024, 0.0198, 0.0214, 0.0168],
      "penalty": [3.11, 3.1, 3.09, 3.08, 3.07, 3.05, 3.04, 3.02, 3, 2.99, 2.97, 2.95, 2.92, 2.9, 2.88, 2.86, 2.83, 2.81, 2.78, 2.76, 2.73, 2.7, 2.67,
        2.64, 2.62, 2.59, 2.56, 2.53, 2.5, 2.46, 2.43, 2.4, 2.37, 2.34, 2.31, 2.28, 2.25, 2.22, 2.19, 2.15, 2.12, 2.09, 2.06, 2.03,
        2, 1.97, 1.94, 1.91, 1.88, 1.85, 1.82, 1.8, 1.77, 1.74, 1.71, 1.69, 1.66, 1.63, 1.61, 1.58]
    },
    "deep": {
      "data": [1.09, 0.548, 0.337, 0.278, 0.213, 0.166, 0.146, 0.15, 0.143, 0.127, 0.12, 0.111, 0.125, 0.103, 0.0814, 0.0902, 0.0794, 0.0601,
        0.0665, 0.0655, 0.0659, 0.0686, 0.0612, 0.0575, 0.0541, 0.04, 0.0474, 0.057, 0.0519, 0.0377, 0.0489, 0.0379, 0.0418, 0.0428,
        0.0434, 0.0402, 0.0342, 0.0338, 0.0397, 0.0349, 0.0364, 0.0284, 0.0301, 0.0316, 0.0257, 0.0278, 0.0278, 0.0288, 0.0272,
        0.0223, 0.0271, 0.026, 0.0206, 0.0193, 0.0215, 0.0233, 0.0242, 0.0204, 0.0204, 0.0178],
      "penalty": [11, 10, 8.95, 7.93, 6.99, 6.14, 5.34, 4.64, 4.02, 3.47, 2.99, 2.57, 2.21, 1.9, 1.63, 1.41, 1.22, 1.06, 0.921, 0.801, 0.698, 0.61,
        0.536, 0.47, 0.416, 0.369, 0.326, 0.291, 0.261, 0.234, 0.21, 0.191, 0.172, 0.157, 0.144, 0.132, 0.122, 0.111, 0.104, 0.0964,
        0.0899, 0.0849, 0.0782, 0.0738, 0.0705, 0.0663, 0.0625, 0.0595, 0.0575, 0.0549, 0.0516, 0.0497, 0.0484, 0.0463, 0.0444,
        0.0431, 0.0416, 0.0405, 0.0388, 0.0378]
    }
  };

  // The penalty's weight at a position of the slider: a half at each place to the left, nothing at the last.
  const weight = (k) => k === 0 ? 0 : FULL * 2 ** (k - HALVES);
  const name = (w) => w === 0 ? "0" : w.toExponential(1).replace(".0", "");
  const digits = (v) => `${+v.toPrecision(3)}`;

  // A term of a net at each step, the recorded penalty re-weighed: nobody trained at that weight.
  function shown(net, term, w) {
    const { data, penalty } = RECORD[net];
    return data.map((loss, i) => (term === PENALTY ? 0 : loss) + (term === DATA ? 0 : w / FULL * penalty[i]));
  }

  function sentence(term, w, original, deep) {
    const ratio = original / deep, apart = ratio > 1.5
      ? `the deep network's is lower by a factor of ${+ratio.toPrecision(2)}` : "the two are level";
    const ends = `the last hundred batches of the original have ${digits(original)}, those of the deep network ${digits(deep)}: ${apart}.`;
    if (term === DATA) return `Data alone: ${ends} No weight of the penalty enters here.`;
    if (w === 0) return term === TOTAL ? `The penalty not counted: ${ends} What is left is the loss on the data.` : "At weight 0 nothing of the penalty is counted.";
    return `The ${term === TOTAL ? "total" : "penalty"} at weight ${name(w)}: ${ends}`;
  }

  explore.penalty = { RECORD, weight, shown };
  explore.figure("penalty", {
    caption: "The recorded runs of the figure above, medians of five seeds. Both networks were trained with the full penalty, at weight 5e-4; "
      + "the slider weighs only what is counted in the picture.",
    question: "At which weight do the totals end within a factor of two, and which of the two terms made the gap?",
    panels: [{ ratio: 0.48, least: 230, label: "Loss against the step on a logarithmic axis, of the original and the deep ConvNet over ten passes" }],
    controls: [either("term", "shown", [TOTAL, DATA, PENALTY], TOTAL),
               range("k", "weight of the penalty, as counted", 0, HALVES, 1, HALVES, (k) => name(weight(k)))],
    draw([panel], { term, k }) {
      const nets = ["original", "deep"], found = nets.map((net) => shown(net, term, weight(k)));
      frame(panel, [0, 8600], [0.003, 30], { x: "step", y: { [TOTAL]: "total", [DATA]: "loss on the data", [PENALTY]: "penalty" }[term], logy: true });
      found.forEach((values, i) => curve(panel, values.map((v, j) => [RECORD.steps[j], v > 0 ? v : NaN]), i));
      legend(panel, nets.map((net, i) => [i, net]));
      return sentence(term, weight(k), found[0].at(-1), found[1].at(-1));
    },
  });
})();
