"""Ratios of training speed, measured side by side in one process: ``make bench``.

In every round each entry runs in turn for a fraction of a second on one thread; the ratios of a round are taken within
it, so that a busy machine slows both sides. Before a speed is taken, 300 steps of the entry are compared with those of
the autograd chain; an entry whose end-to-end matrices differ gets no speed, and the command fails.
"""

import argparse
import datetime
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import scipy.optimize
import torch
from peers import AutogradChain, BatchedAutograd, Engine, Problem, Roofline, VmapGrad

import deeplinear as dl

RESULTS = Path(__file__).parent / "results"
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4}
AGREE_OVER = 300  # steps
PEERS = {"autograd chain": AutogradChain, "batched autograd": BatchedAutograd, "vmap(grad)": VmapGrad,
         "engine": Engine, "roofline": Roofline}
# table, depths, peer, least ratio of the engine on one CPU core; set before anything was measured
TARGETS = [
    ("p = 4, float64, 128 runs", (1, 2, 3), "autograd chain", 25), ("p = 4, float64, 128 runs", (8,), "autograd chain", 35),
    ("p = 4, float64, 128 runs", (1, 2, 3, 8), "roofline", 0.75),
    ("p = 4, float32, 128 runs", (1, 2, 3, 8), "autograd chain", 45),
    ("p = 4, float32, 128 runs", (1, 2, 3, 8), "roofline", 0.65),
    ("p = 2, float64, 128 runs", (1, 2, 3, 8), "autograd chain", 500),
    ("p = 4, float32, 128 runs, width 128", (8,), "autograd chain", 60),
    ("p = 4, float64, one run", (1, 2, 3, 8), "autograd chain", 3),
]
ON_A_GPU = 8e6  # least config-steps/s with 1024 runs


class Disagreement(RuntimeError):
    """An entry does not take the steps that the autograd chain takes."""


def main(arguments=None):
    """Measure, print the tables, write the JSON; returns 1 where an entry disagrees with the autograd chain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.15, help="of each entry in each round")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, to see that everything runs; writes nothing")
    parser.add_argument("--out", default=RESULTS, type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    X, y, source = _data(options.smoke)
    X, y = X.to(device), y.to(device)
    try:
        tables = [measure(title, problems, peers, options) for title, problems, peers in cases(X, y, options.smoke)]
    except Disagreement as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report = {
        "device": dl.recorded.device_name(device), "data": source, "rounds": options.rounds, "seconds": options.seconds,
        "threads": torch.get_num_threads(), "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": dl.recorded.versions(),
        "tables": tables, "growth": growth(X, y, options), "time_to_gap": time_to_gap(X, y, options),
    }
    report["targets"] = targets(tables, device)
    show(report)
    if not options.smoke:
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / f"{device}.json"
        path.write_text(json.dumps(report, indent=1) + "\n")
        print(f"written: {path}")
    return 0


def cases(X, y, smoke):
    """The tables: a title, a problem for each depth, and the entries that are compared."""
    runs = 4 if smoke else 1024 if X.is_cuda else 128
    depths = (1, 2) if smoke else (1, 2, 3, 8)
    rates = {2: 1e-2, 4: 1e-3} if smoke else {2: 1e-4, 4: 1e-6}  # stable, and far enough to tell a difference

    def problems(p, dtype, runs=runs, width=1, depths=depths, **more):
        rate = rates[p] / (1 if width == 1 else 10)
        return [Problem(X.to(dtype), y.to(dtype), p, depth, width, runs, rate, **more) for depth in depths]

    full = ("autograd chain", "batched autograd", "vmap(grad)", "engine", "roofline")
    for dtype in (torch.float64, torch.float32):
        yield f"p = 4, {str(dtype)[6:]}, {runs} runs", problems(4, dtype), full
    yield f"p = 2, float64, {runs} runs", problems(2, torch.float64), ("autograd chain", "engine", "roofline")
    yield (f"p = 4, float64, {runs} runs, Adam", problems(4, torch.float64, optimizer="Adam"),
           ("autograd chain", "engine"))
    yield "p = 4, float64, one run", problems(4, torch.float64, 1), ("autograd chain", "engine", "roofline")
    width = 8 if smoke else 128
    yield (f"p = 4, float32, {runs} runs, width {width}",
           problems(4, torch.float32, width=width, depths=depths[-1:]), ("autograd chain", "engine"))


def measure(title, problems, peers, options):
    """One table: for every depth, config-steps/s of each entry and the engine's ratio to each, per round."""
    rows = []
    for problem in problems:
        agree(problem, peers)
        entries = {name: PEERS[name](problem) for name in peers}
        rates = race(entries, options)
        ratios = {name: summary([a / b for a, b in zip(rates["engine"], rates[name])])
                  for name in peers if name != "engine"}
        rows.append({"depth": problem.depth, "speed": {name: statistics.median(rates[name]) for name in peers},
                     "engine_over": ratios})
    return {"title": title, "rows": rows}


def agree(problem, peers):
    """Raise :class:`Disagreement` unless every entry gets where the autograd chain gets, for three of the runs."""
    some = [0, problem.runs // 2, problem.runs - 1]
    chains = [AutogradChain(problem, run) for run in some]
    start = torch.cat([chain.end_to_end() for chain in chains])
    for chain in chains:
        chain.advance(AGREE_OVER)
    expected = torch.cat([chain.end_to_end() for chain in chains])
    if not abs(expected - start).max() > 1e-3 * abs(start).max():
        raise Disagreement(f"{problem.depth} layers hardly move at rate {problem.rate}; nothing is compared")
    for name in peers:
        if name in ("autograd chain", "roofline"):
            continue
        entry = PEERS[name](problem)
        entry.advance(AGREE_OVER)
        apart = (abs(entry.end_to_end()[some] - expected).max() / abs(expected).max()).item()
        if not apart <= TOLERANCE[problem.X.dtype]:
            raise Disagreement(f"{name} differs from the autograd chain by {apart:.1e} after {AGREE_OVER} steps at depth "
                               f"{problem.depth}, width {problem.width}, p = {problem.p}; expected at most "
                               f"{TOLERANCE[problem.X.dtype]:.0e}. Its speed says nothing.")


def race(entries, options):
    """config-steps/s of every entry in every round; the entries take turns."""
    counts = {}
    for name, entry in entries.items():
        entry.advance(2)
        steps = 1
        while (spent := clock(entry, steps)) < options.seconds / 4:
            steps *= 2
        counts[name] = max(1 if options.smoke else entry.least_steps, round(steps * options.seconds / spent))
    rates = {name: [] for name in entries}
    for _ in range(options.rounds):
        for name, entry in entries.items():
            rates[name].append(entry.runs * counts[name] / clock(entry, counts[name]))
    return rates


def clock(entry, steps):
    """Seconds of processor time, or of wall time where a GPU does the work."""
    if not torch.cuda.is_available():
        start = time.process_time()
        entry.advance(steps)
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    entry.advance(steps)
    torch.cuda.synchronize()
    return time.perf_counter() - start


def growth(X, y, options):
    """How the engine's cost per config-step grows when one size changes, with its share of the roofline."""
    runs, (n, d) = (4 if options.smoke else 128), X.shape
    middle = {"runs": runs, "depth": 2, "width": 1, "rows": n, "columns": d}
    sizes = {"runs": (1, 4, 16, 64, 128, 256, 512, 1024), "depth": (1, 2, 3, 4, 8, 16), "width": (1, 4, 16, 64, 128),
             "rows": (n // 8, n // 4, n // 2, n, 2 * n, 4 * n), "columns": (d // 8, d // 4, d // 2, d, 2 * d, 4 * d)}
    found = {}
    for name, values in sizes.items():
        found[name] = []
        for value in values[:2] if options.smoke else values:
            at = {**middle, name: value}
            tall = X.repeat(-(-at["rows"] // n), -(-at["columns"] // d))[:at["rows"], :at["columns"]].contiguous()
            label = y.repeat(-(-at["rows"] // n))[:at["rows"]]
            problem = Problem(tall, label, 4, at["depth"], at["width"], at["runs"], 1e-8)
            rates = race({"engine": Engine(problem), "roofline": Roofline(problem)}, options)
            found[name].append({"value": value, "microseconds": 1e6 / statistics.median(rates["engine"]),
                                "of_roofline": summary([a / b for a, b in zip(rates["engine"], rates["roofline"])])})
    return found


def time_to_gap(X, y, options):
    """Seconds until the l4 loss is within a share of the gap at zero of its minimum, one run of each method."""
    loss = dl.LpLoss(X.cpu().double(), y.cpu().double(), 4)
    minimum = loss.value(dl.losses.minimiser(loss)).item()
    zero = loss.value(torch.zeros(loss.shape, dtype=torch.float64)).item()
    levels = {share: minimum + share * (zero - minimum) for share in (0.04, 0.01)}
    rows = []
    for name, method in (("L-BFGS", _lbfgs), ("Newton", _newton)):
        trace = method(loss)
        rows.append({"method": name, "steps": len(trace) - 1, **_reached(trace, levels)})
    steps = 200 if options.smoke else 100_000
    for depth, rate in ((1, 5e-4), (2, 1e-4)):
        layers = dl.near_zero_init((loss.shape[1],) + (1,) * depth, 0.01, dl.seeded(0))
        start = time.process_time()
        run = dl.train(loss, layers, dl.GD(rate), steps, dl.descent.logarithmic(steps, 400))
        pace = (time.process_time() - start) / steps
        trace = [(step * pace, value) for step, value in zip(run.steps.tolist(), run.loss.tolist())]
        rows.append({"method": f"gradient descent, depth {depth}, rate {rate:g}", "steps": steps, **_reached(trace, levels)})
    return rows


def _reached(trace, levels):
    return {f"to {share:.0%}": next((seconds for seconds, value in trace if value <= level), None)
            for share, level in levels.items()}


def _lbfgs(loss):
    start, trace = time.process_time(), []

    def value(w):
        W = torch.from_numpy(w).reshape(loss.shape)
        found, G = loss.value_and_gradient(W)
        trace.append((time.process_time() - start, found.item()))
        return found.item(), G.numpy().ravel()

    scipy.optimize.minimize(value, np.zeros(loss.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 2000})
    return trace


def _newton(loss):
    start, trace, W = time.process_time(), [], torch.zeros(loss.shape, dtype=torch.float64)
    for _ in range(30):
        value, G = loss.value_and_gradient(W)
        trace.append((time.process_time() - start, value.item()))
        basis = torch.eye(loss.shape[1], dtype=W.dtype)[:, None, :]
        H = loss.hessian_product(W, basis)[:, 0]
        step, size = torch.linalg.lstsq(H, G[0][:, None], driver="gelsd").solution.T, 1.0
        while loss.value(W - size * step) > value and size > 1e-4:
            size /= 2
        W = W - size * step
    return trace


def targets(tables, device):
    """The ratios that were set beforehand: least, found, and the most that two matrix products a step would leave.

    ``verdict``: "met"; "out of reach" where the roofline itself is below the target; else "missed".
    """
    found = {table["title"]: table["rows"] for table in tables}
    checked = []
    if device == "cuda":
        for title, rows in found.items():
            if title.startswith("p = 4") and title.endswith(" 1024 runs"):
                checked += [_target(f"{title}, depth {row['depth']}: engine, million config-steps/s", ON_A_GPU / 1e6,
                                    row["speed"]["engine"] / 1e6, row["speed"]["roofline"] / 1e6) for row in rows]
                checked += [_target(f"{title}, depth {row['depth']}: engine / roofline", 0.5,
                                    row["engine_over"]["roofline"]["median"], 1.0) for row in rows]
        return checked
    for title, depths, peer, least in TARGETS:
        for row in found.get(title, []):
            if row["depth"] in depths:
                bound = None
                if "roofline" in row["speed"] and title.startswith("p = 4"):
                    bound = row["speed"]["roofline"] / row["speed"][peer]
                checked.append(_target(f"{title}, depth {row['depth']}: engine / {peer}", least,
                                       row["engine_over"][peer]["median"], bound))
    return checked


def _target(name, least, found, bound):
    verdict = "met" if found >= least else "out of reach" if bound is not None and bound < least else "missed"
    return {"target": name, "least": least, "found": found, "roofline_allows": bound, "verdict": verdict}


def show(report):
    """Print what was measured."""
    print(f"{report['device']}, {report['threads']} thread, {report['data']}; engine over each, median (min-max) of "
          f"{report['rounds']} rounds")
    for table in report["tables"]:
        peers = list(table["rows"][0]["engine_over"])
        dl.table([table["title"], "engine, config-steps/s", *peers],
                 [[f"depth {row['depth']}", f"{row['speed']['engine']:.3g}",
                   *("{median:.3g} ({min:.3g}-{max:.3g})".format(**row["engine_over"][peer]) for peer in peers)]
                  for row in table["rows"]])
        print()
    for name, rows in report["growth"].items():
        dl.table([name, "microseconds a config-step", "of the roofline"],
                 [[row["value"], f"{row['microseconds']:.3g}", f"{row['of_roofline']['median']:.2f}"] for row in rows])
        print()
    dl.table(["seconds to a gap, p = 4", "4 %", "1 %", "steps or evaluations"],
             [[row["method"], *("not reached" if row[k] is None else f"{row[k]:.3g}" for k in ("to 4%", "to 1%")),
               row["steps"]] for row in report["time_to_gap"]])
    print()
    dl.table(["target", "least", "found", "roofline allows", "verdict"],
             [[t["target"], f"{t['least']:g}", f"{t['found']:.3g}",
               "" if t["roofline_allows"] is None else f"{t['roofline_allows']:.3g}", t["verdict"]]
              for t in report["targets"]])


def summary(values):
    """Median, least and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _data(smoke):
    if smoke:
        found = dl.data.load("diabetes")
        return found.X, found.y, "diabetes"
    try:
        found = dl.data.load("ethanol", download=False)
        return found.X, found.y, "ethanol, 2565 rows, 128 columns"
    except dl.data.DataUnavailable:
        X = dl.normal(2565, 128, generator=dl.seeded(0))
        return X, dl.normal(2565, generator=dl.seeded(1)), "Gaussian, 2565 rows, 128 columns"


if __name__ == "__main__":
    sys.exit(main())
