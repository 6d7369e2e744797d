"""Steps replayed as CUDA graphs against plain steps: emulated on a CPU, to the bit, and on a GPU where there is one."""

import dataclasses
from pathlib import Path
from unittest import mock

import pytest
import sympy as sp
import torch
from conftest import Stop, stop_at
from emulated_graphs import Refused, graphs_on_a_cpu

import deeplinear as dl
from deeplinear import descent
from deeplinear.descent import network, replay
from deeplinear.__main__ import main
from deeplinear.experiments import EXPERIMENTS, l4_tries

OPTIMISERS = {
    **dl.optimizers.PRESETS,
    "gd with decay": lambda lr: dl.GD(lr, weight_decay=0.01),
    "clipped": lambda lr: l4_tries.Clipped(lr, longest=0.5),
    "warm-up": lambda lr: l4_tries.WarmUp(lr, over=40.0),
}
STEPS, RECORD = 43, [0, 1, 7, 20, 21, 38, 43]


@pytest.fixture(autouse=True)
def looks(monkeypatch):
    """Who has diverged is looked at often, so that few steps see shapes change and every graph replayed."""
    monkeypatch.setattr(descent, "CHECK_EVERY", 10)


def loss_of(p, outputs=1, dtype=torch.float64):
    generator = dl.seeded(p)
    X, y = dl.normal(20, 4, generator=generator), dl.normal(20, outputs, generator=generator)
    return dl.LpLoss(X.to(dtype), y.to(dtype), p)


def groups(loss, optimiser, depths=(1, 2, 3), rules=("layers", "end-to-end"), rates=(1e-3, 1e-2, 30.0)):
    """One for each depth and rule; with plain gradient descent the last rate diverges."""
    (outputs, features), like = loss.shape, getattr(loss, "X", torch.zeros(1, dtype=torch.float64))
    found = []
    for depth in depths:
        dims = (features,) + (2,) * (depth - 1) + (outputs,)
        start = [W.to(like) for W in dl.near_zero_init(dims, 0.5, dl.seeded(depth))]
        found += [dl.Group(loss, start, optimiser(like.new_tensor(rates)), rule) for rule in rules if depth > 1 or rule == "layers"]
    return found


def mixed():
    """Two losses, two optimisers, two depths, both rules: what one call of ``sweep`` may have to deal with."""
    losses = loss_of(2), loss_of(4)
    return [group for loss in losses for optimiser in (dl.Nesterov, dl.Adam) for group in groups(loss, optimiser, (1, 2))]


def captured(*arguments, **more):
    """The runs with emulated graphs, and the graphs."""
    with graphs_on_a_cpu() as graphs:
        return dl.sweep(*arguments, **more), graphs


def same(runs, others):
    """Whether all numbers of the runs are equal, to the bit."""
    def numbers(run):
        return [run.steps, run.diverged_at, run.loss, *run.weights]

    return all(x.shape == y.shape and torch.equal(x.nan_to_num(-1), y.nan_to_num(-1))
               for a, b in zip(runs, others, strict=True) for x, y in zip(numbers(a), numbers(b), strict=True))


@pytest.mark.parametrize("p", [2, 4])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_replayed_steps_are_the_plain_ones(name, p):
    mine = groups(loss_of(p), OPTIMISERS[name])
    runs, graphs = captured(mine, STEPS, RECORD)
    assert same(runs, dl.sweep(mine, STEPS, RECORD))
    assert len(graphs) >= 3 and sum(graph.replays for graph in graphs) > len(graphs)


@pytest.mark.parametrize("case", [
    lambda: groups(loss_of(4), dl.GD, depths=(8,)), lambda: groups(loss_of(2), dl.Adam, depths=(8,)),
    lambda: groups(loss_of(4, outputs=3), dl.HeavyBall, rules=("layers",)),
    lambda: groups(loss_of(2, dtype=torch.float32), dl.GD), lambda: groups(loss_of(4, dtype=torch.float32), dl.Adam)],
    ids=["depth 8", "depth 8, p = 2, Adam", "three outputs", "float32, p = 2", "float32, Adam"])
def test_other_shapes_and_precisions(case):
    runs, graphs = captured(case(), STEPS, RECORD)
    assert graphs and same(runs, dl.sweep(case(), STEPS, RECORD))


def test_graphs_are_made_anew_when_runs_leave():
    """Rates that rise with the steps: their runs go at different times, and the shapes change on the way."""
    rates = (1e-3, 1.0, 2.0, 4.0, 30.0)
    mine = groups(loss_of(4), lambda lr: l4_tries.WarmUp(lr, over=100.0), rates=rates)
    runs, graphs = captured(mine, 70, 7)
    assert same(runs, dl.sweep(mine, 70, 7))
    assert all(run.diverged_at[0] == -1 and run.diverged_at[4] < 10 < 20 < run.diverged_at[1] for run in runs)
    assert len({len(graph.calls) for graph in graphs}) < len(graphs) >= 9  # of three lengths, at three or more shapes


@pytest.mark.parametrize("record", [1, 7, 1000, [3], [0, 29, 30, 31, 43]], ids=str)
def test_patterns_of_records(record):
    runs, graphs = captured(mixed(), STEPS, record)
    assert graphs and same(runs, dl.sweep(mixed(), STEPS, record))


def test_graphs_of_all_sizes(monkeypatch):
    """With the library's own distance between two looks."""
    monkeypatch.undo()
    mine = groups(loss_of(4), dl.HeavyBall, (2,), ("layers",))
    runs, graphs = captured(mine, 263, 263)
    lengths = {len(graph.calls) for graph in graphs}
    assert max(lengths) == 32 * min(lengths) and same(runs, dl.sweep(mine, 263, 263))


@pytest.mark.parametrize("first, then", [(captured, captured), (captured, None), (None, captured)],
                         ids=["replayed throughout", "replayed, then plain", "plain, then replayed"])
@pytest.mark.parametrize("step", [0, 30])
def test_a_resumed_run(tmp_path, first, then, step):
    def sweep(how, **more):
        return how(mixed(), STEPS, RECORD, **more)[0] if how else dl.sweep(mixed(), STEPS, RECORD, **more)

    checkpoint = dl.recorded.Checkpoint(tmp_path / "run.npz", "mixed")
    with pytest.raises(Stop):
        sweep(first, checkpoint=checkpoint, report=stop_at(step))
    assert same(sweep(then, checkpoint=checkpoint), sweep(None))


def quartic(a, b):
    return (a - 1) ** 4 + (a - b) ** 2


@pytest.mark.parametrize("case, how", [
    (lambda: groups(loss_of(4, outputs=3), dl.GD, rules=("end-to-end",)), {}),
    (lambda: groups(dl.Polynomial(quartic(*sp.symbols("a b")), sp.symbols("a b")), dl.GD, rules=("layers",)), {}),
    (lambda: groups(loss_of(4), dl.GD), {"rows": lambda: torch.arange(5)})],
    ids=["a singular value decomposition", "a foreign loss", "minibatches"])
def test_what_needs_the_host_is_not_captured(case, how):
    mine = case()
    runs, graphs = captured(mine, 120, **how)
    assert not graphs and same(runs, dl.sweep(mine, 120, **how))


SWEEPING = [name for name, module in EXPERIMENTS.items() if "sweep(" in Path(module.__file__).read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", SWEEPING)
def test_the_jobs_of_an_experiment(name):
    """Quick scale, one job of every experiment that trains with ``sweep``: equal arrays."""
    module = EXPERIMENTS[name]
    config = module.SCALES["quick"]
    job = module.jobs(config, "cpu")[0]
    with graphs_on_a_cpu() as graphs:
        found = module.run_job(config, job, "cpu")
    plain = module.run_job(config, job, "cpu")
    assert graphs and found.keys() == plain.keys()
    for key, array in plain.items():
        torch.testing.assert_close(torch.as_tensor(found[key]), torch.as_tensor(array), rtol=0, atol=0, equal_nan=True)


# A step that a GPU could not capture, or would replay wrongly: the emulation must tell.

@dataclasses.dataclass(frozen=True)
class Asking(dl.GD):
    """Gradient descent that puts a question before every step."""

    question: object = None

    def __post_init__(self):
        pass

    def step(self, parameters, gradients, state):
        self.question(gradients[0])
        super().step(parameters, gradients, state)


@pytest.mark.parametrize("question, word", [
    (lambda G: G.sum().item(), "_local_scalar_dense"), (lambda G: bool((G > 0).any()), "_local_scalar_dense"),
    (lambda G: G.nonzero(), "nonzero"), (lambda G: torch.equal(G, G), "equal"), (lambda G: G[G > 0], "index"),
    (torch.linalg.svdvals, "_linalg_svd"), (lambda G: G.tolist(), "tolist"), (lambda G: G.cpu(), "cpu"),
    (lambda G: G.to("cpu"), "to brings"), (lambda G: G.numpy(), "numpy"), (lambda G: G * torch.tensor(0.5), "lift_fresh")],
    ids=["item", "bool", "nonzero", "equal", "mask", "svd", "tolist", "cpu", "to", "numpy", "a number of the host"])
def test_a_step_that_asks_the_host_is_refused(question, word):
    mine = groups(loss_of(4), lambda lr: Asking(lr, question=question), rates=(1e-3, 1e-2))
    dl.sweep(mine, 60)  # a plain loop does not mind
    with pytest.raises(Refused, match=word):
        captured(mine, 60)


def rebound(name):
    """``Network.move`` that goes on with copies of its parameters or state, in place of the tensors themselves."""
    move, place = network.Network.move, {"parameters": 2, "state": 3}[name]

    def moved(self, G):
        move(self, G)
        setattr(self, name, [tensor.clone() for tensor in getattr(self, name)])
        for part in self.parts:
            part[place][:] = [tensor[part[0]] for tensor in getattr(self, name)]

    return mock.patch.object(network.Network, "move", moved)


@pytest.mark.parametrize("name", ["parameters", "state"])
def test_a_step_that_replaces_a_tensor_is_noticed(name):
    mine = groups(loss_of(4), dl.HeavyBall, rates=(1e-3, 1e-2))
    plain = dl.sweep(mine, STEPS, RECORD)
    with rebound(name):
        assert same(dl.sweep(mine, STEPS, RECORD), plain)  # a plain loop does not mind
        assert not same(captured(mine, STEPS, RECORD)[0], plain)


@dataclasses.dataclass(frozen=True)
class Counting(dl.GD):
    """Gradient descent whose rate falls with a count that the host keeps."""

    counts: list = dataclasses.field(default_factory=list)

    def __post_init__(self):
        pass

    def step(self, parameters, gradients, state):
        self.counts.append(None)
        super().step(parameters, [G / len(self.counts) for G in gradients], state)


def test_a_step_that_counts_on_the_host_is_noticed():
    def mine():
        return groups(loss_of(4), Counting, depths=(2,), rules=("layers",), rates=(1e-3, 1e-2))

    assert same(dl.sweep(mine(), STEPS, RECORD), dl.sweep(mine(), STEPS, RECORD))
    assert not same(captured(mine(), STEPS, RECORD)[0], dl.sweep(mine(), STEPS, RECORD))


on_a_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")]


def close(runs, others):
    """The same divergences, and losses of the runs that live equal to nine digits."""
    for a, b in zip(runs, others, strict=True):
        assert torch.equal(a.diverged_at.cpu(), b.diverged_at.cpu())
        alive = a.diverged_at.cpu() < 0
        torch.testing.assert_close(a.loss.cpu()[:, alive], b.loss.cpu()[:, alive], rtol=1e-9, atol=0)


def there(mine):
    """The groups on the GPU; those of one loss still share it."""
    losses = {id(group.loss): group.loss.to("cuda") for group in mine}
    return [dataclasses.replace(group, loss=losses[id(group.loss)], weights=[W.cuda() for W in group.weights],
                                optimizer=dataclasses.replace(group.optimizer, lr=group.optimizer.lr.cuda())) for group in mine]


class TestOnAGPU:
    pytestmark = on_a_gpu

    @pytest.fixture(autouse=True)
    def looks(self):
        """At who has diverged, as seldom as the library does by itself."""

    @pytest.mark.parametrize("name", OPTIMISERS)
    @pytest.mark.parametrize("p", [2, 4])
    def test_a_gpu_finds_the_same(self, name, p):
        mine = groups(loss_of(p), OPTIMISERS[name], depths=(1, 2, 3, 8))
        on_it = dl.sweep(there(mine), 333, 7)
        close(on_it, dl.sweep(mine, 333, 7))
        with mock.patch.object(replay, "GRAPHS", ()):
            close(on_it, dl.sweep(there(mine), 333, 7))

    def test_many_groups_and_a_step_that_is_not_captured(self):
        mine = mixed() + groups(loss_of(4, outputs=3), dl.GD)
        close(dl.sweep(there(mine), 333, 7), dl.sweep(mine, 333, 7))

    def test_a_resumed_run_on_a_gpu(self, tmp_path):
        checkpoint, mine = dl.recorded.Checkpoint(tmp_path / "run.npz", "mixed"), there(mixed())
        with pytest.raises(Stop):
            dl.sweep(mine, 333, 7, checkpoint=checkpoint, report=stop_at(150))
        close(dl.sweep(mine, 333, 7, checkpoint=checkpoint), dl.sweep(mine, 333, 7))

    @pytest.mark.parametrize("name", EXPERIMENTS)
    def test_an_experiment_records_on_a_gpu(self, name, tmp_path):
        assert main(["run", name, "--device", "cuda", "--out", str(tmp_path)]) == 0
        provenance = dl.recorded.load(name, folder=tmp_path, quiet=True).provenance
        assert "driver" in provenance["device"] and provenance["versions"]["torch"] == torch.__version__
