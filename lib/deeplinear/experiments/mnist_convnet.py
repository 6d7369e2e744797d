"""The MNIST ConvNet with and without redundant linear layers: the loss of every batch, each model at its own best rate.

The settings of TensorFlow's tutorial, which Arora, Cohen and Hazan 2018 use for Figure 5 right: heavy-ball momentum 0.9,
batches of 64 in the order of the file, dropout, an L2 penalty on the dense layers. Only the learning rate is tuned.
"""

import dataclasses

import torch

from .. import chain, convnet, data

NAME = "mnist-convnet"
SUMMARY = "the MNIST ConvNet, original and with redundant linear layers, two nets, controls (paper A, Figure 5 right)"
VALIDATION = 5000  # the first images, as in the tutorial


@dataclasses.dataclass(frozen=True)
class Model:
    """``variant``: of :func:`deeplinear.convnet.build`, new matrices of standard deviation ``std``, in the penalty or not
    (``penalise_new``); ``net``: the tutorial's, or a small one of another shape without dropout. ``rates``: its grid of
    effective rates, lr / (1 - momentum), placed so that the best one lies inside."""

    name: str
    variant: str = "original"
    std: float = 0.1
    penalise_new: bool = True
    momentum: float = 0.9
    net: str = "tutorial"
    rates: tuple = (0.05, 0.1, 0.2, 0.4)


SMALL_RATES = (0.1, 0.2, 0.4, 0.8)
MODELS = (
    Model("original"), Model("deep", "deep"), Model("deep, new not penalised", "deep", penalise_new=False),
    Model("deep, std 0.001", "deep", std=0.001), Model("deep, std 0.5", "deep", std=0.5, rates=(0.00625, 0.0125, 0.025, 0.05)),
    Model("deep, identity start", "identity"), Model("original, folded start", "folded"), Model("low-rank", "low-rank"),
    Model("original, no momentum", momentum=0.0), Model("deep, no momentum", "deep", momentum=0.0),
    Model("small original", net="small", rates=SMALL_RATES), Model("small deep", "deep", net="small", rates=SMALL_RATES),
    Model("small deep, identity start", "identity", net="small", rates=SMALL_RATES))
NETS = {"tutorial": convnet.TUTORIAL, "small": convnet.SMALL}


@dataclasses.dataclass(frozen=True)
class Config:
    """``levels``: the losses to which steps are counted."""

    dataset: str = "mnist"
    models: tuple = MODELS
    levels: tuple = (1.0, 0.5, 0.3, 0.2)
    seeds: tuple = (0, 1, 2, 3, 4)
    steps: int = 300
    batch: int = 64
    order: str = "tutorial"
    window: int = 25
    dtype: str = "float32"


SCALES = {
    "quick": Config(dataset="mnist-5k", models=MODELS[-3:-1], seeds=(0, 1), steps=60, order="shuffled"),
    "full": Config(),
}


def jobs(config, device):
    """One model and one seed each, at every rate; the size counts images."""
    return [{"model": m, "seed": seed, "size": config.steps * config.batch * len(model.rates)}
            for m, model in enumerate(config.models) for seed in config.seeds]


def run_job(config, job, device, checkpoint=None, report=None):
    """For every rate: ``data`` (rates, steps), ``penalty`` (rates, records), and of the validation images the share of
    errors and the loss, ``validation`` (rates, 2); ``seconds`` of all steps; the parameters' number."""
    dataset = data.load(config.dataset)
    X, y = dataset.X.to(device), dataset.y.to(device)
    held = slice(None, None, 10) if config.dataset == "mnist-5k" else slice(0, VALIDATION)  # its digits are sorted
    kept = torch.ones(len(y), dtype=torch.bool, device=device)
    kept[held] = False
    model = config.models[job["model"]]
    runs, validation = [], []
    for i, rate in enumerate(model.rates):
        net = convnet.build(model.variant, chain.seeded(job["seed"]), model.std, **NETS[model.net]).to(device)
        look = report and (lambda step, i=i: report((i + step / config.steps) / len(model.rates)))
        run = convnet.train(net, X[kept], y[kept], rate * (1 - model.momentum), config.steps, config.batch, model.momentum,
                            penalise="both" if model.penalise_new else "old", order=config.order, seed=job["seed"],
                            report=look)
        runs.append(run)
        validation.append(convnet.evaluate(net, X[held], y[held]) if run.diverged_at < 0 else (float("nan"),) * 2)
    records = -(-config.steps // 20)
    penalty = torch.full((len(runs), records), torch.nan, dtype=torch.float64)
    for row, run in zip(penalty, runs):
        row[:len(run.penalty)] = run.penalty
    return {"data": torch.stack([run.data for run in runs]).numpy(), "penalty": penalty.numpy(),
            "validation": torch.tensor(validation).numpy(), "parameters": convnet.parameters(net),
            "seconds": sum(run.seconds for run in runs)}


def collect(config, jobs, results):
    """Arrays for each model: ``<name>`` the data loss of every batch at the best rate (steps, seeds), ``<name> penalty``
    (records, seeds). The best rate has the smallest median over seeds of the mean data loss of the last ``window``
    batches, among those at which no seed diverged. Summary: that rate and loss, its smallest and largest over seeds,
    the median steps to each of ``levels`` (null where the median never gets there), validation, parameters."""
    arrays, metrics, summary = {}, [], {}
    for m, model in enumerate(config.models):
        mine = [(job["seed"], result) for job, result in zip(jobs, results) if job["model"] == m]
        batches = torch.stack([torch.as_tensor(result["data"]) for _, result in mine], -1)  # (rates, steps, seeds)
        penalty = torch.stack([torch.as_tensor(result["penalty"]) for _, result in mine], -1)
        validation = torch.stack([torch.as_tensor(result["validation"]) for _, result in mine], -1)
        final = batches[:, -config.window:].mean(1)
        score = torch.where(final.isfinite().all(1), final.median(1).values, torch.inf)
        best = int(score.argmin())
        metrics += [{"model": model.name, "rate": rate, "seed": seed,
                     "loss": final[r, s].item() if final[r, s].isfinite() else None}
                    for r, rate in enumerate(model.rates) for s, (seed, _) in enumerate(mine)]
        if not final[best].isfinite().all():  # at every rate a seed diverged
            summary[model.name] = {"best_rate": None}
            arrays |= {model.name: batches[best, :, :0].float(), f"{model.name} penalty": penalty[best, :, :0].float()}
            continue
        found = [[convnet.steps_to(run, level, config.window) for level in config.levels] for run in batches[best].T]
        middle = torch.tensor(found, dtype=torch.float64).median(0).values.tolist()
        arrays |= {model.name: batches[best].float(), f"{model.name} penalty": penalty[best].float()}
        summary[model.name] = {
            "best_rate": model.rates[best], "loss": final[best].median().item(), "least": final[best].min().item(),
            "most": final[best].max().item(), "parameters": int(mine[0][1]["parameters"]),
            "steps_to": [None if steps == float("inf") else int(steps) for steps in middle],
            "validation_loss": validation[best, 0].median().item(), "validation_error": validation[best, 1].median().item(),
            "milliseconds_a_step": 1000 * sum(float(r["seconds"]) for _, r in mine) / int(batches.isfinite().sum())}
    return metrics, summary, arrays


def pairs(config, job, result, record):
    """Of one model and seed the losses of every batch and the penalty at the model's best rate, and the loss at the end
    at every rate (1, rates), as in the record and in ``result``."""
    model, seed = config.models[job["model"]], config.seeds.index(job["seed"])
    rows = [row for row in record.metrics if (row["model"], row["seed"]) == (model.name, job["seed"])]
    stored = torch.tensor([torch.nan if row["loss"] is None else row["loss"] for row in rows], dtype=torch.float32)
    batches, penalty = torch.as_tensor(result["data"]), torch.as_tensor(result["penalty"])
    found = {f"{model.name} last": (stored[None], batches[:, -config.window:].mean(1)[None])}
    best = record.summary[model.name]["best_rate"]
    if best is not None:
        at = model.rates.index(best)
        found |= {model.name: (record.arrays[model.name][:, seed], batches[at].float()),
                  f"{model.name} penalty": (record.arrays[f"{model.name} penalty"][:, seed], penalty[at].float())}
    return found
