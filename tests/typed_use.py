"""How the library is called, for mypy alone: what comes out has its type, and a wrong argument is an error there."""

from typing import assert_type

import numpy as np
import torch

import deeplinear as dl

data = dl.data.load("diabetes")
loss = dl.LpLoss(data.X, data.y, p=4)
weights = dl.balanced_init((10, 3, 1), dl.seeded(0), std=0.1)
assert_type(weights, list[torch.Tensor])
assert_type(dl.end_to_end(weights), torch.Tensor)
assert_type(dl.end_to_end([np.eye(2, dtype=object)]), np.ndarray)

run = dl.train(loss, weights, dl.Adam(lr=[0.1, 0.01]), 100, record_every=10)
assert_type(run.steps_to(0.1), torch.Tensor)
on = dl.sweep([dl.Group(loss, run, dl.optimizers.preset("gd", 0.1), rule="layers")], 50, record_every=[0, 10, 50])
assert_type(on[0].loss, torch.Tensor)
assert_type(dl.flow.compare(loss, weights, [0, 1, 2.5]).gap, float)
assert_type(dl.flow.end_to_end(loss, np.ones((1, 10)), 3, np.linspace(0, 1, 5)).end_to_end, torch.Tensor)
assert_type(dl.field.is_gradient(loss, 2).gradient, bool)
assert_type(dl.conservation.count_laws((2, 3, 1), activation="relu").count, int)
assert_type(dl.recorded.load("relu-balance").arrays, dict[str, torch.Tensor])
assert_type(dl.plots.ellipses(depths=(1, 2)).svg(), str)
assert_type(dl.fold(dl.deepen(torch.nn.Linear(3, 2), where="", start="balanced")), torch.nn.Linear)
assert_type(dl.convnet.fold(dl.convnet.build("deep", dl.seeded(0))), dl.convnet.ConvNet)

dl.train(loss, weights, dl.GD(0.1), 100, rule="layer")  # type: ignore[arg-type]
dl.train(loss, weights, 0.1, 100)  # type: ignore[arg-type]
dl.train(data, weights, dl.GD(0.1), 100)  # type: ignore[arg-type]
dl.deepen(torch.nn.Linear(3, 2), start="zero")  # type: ignore[arg-type]
dl.balanced_init((10, 3, 1), 0)  # type: ignore[arg-type]
dl.end_to_end([[[1.0]]])  # type: ignore[type-var]
dl.conservation.count_laws((2, 3, 1), activation="tanh")  # type: ignore[arg-type]
dl.LpLoss(data.X, data.y, 2, "max")  # type: ignore[arg-type]
dl.field.line_integral(loss, 2, 0.5, 1, method="exact")  # type: ignore[arg-type]
