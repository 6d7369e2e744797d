"""The ConvNet: its counts, its start, the equality of folded nets, and a step against one written out by hand."""

import math

import pytest
import torch
from torch.nn import functional as F

import deeplinear as dl
from deeplinear import convnet
from deeplinear.penalties import CHOICES

TINY = {"channels": (2, 3), "kernel": 3, "hidden": 16, "dropout": 0.0, "side": 8}


def digits(count=40, side=8):
    generator = dl.seeded(0)
    return dl.normal(count, side * side, generator=generator).float(), torch.arange(count) % 10


def test_the_tutorials_net_has_its_parameters():
    original, deep = (convnet.build(variant, dl.seeded(0)) for variant in ("original", "deep"))
    sizes = [p.numel() for p in original.parameters()]
    assert sizes == [800, 32, 51200, 64, 1605632, 512, 5120, 10] and convnet.parameters(original) == 1_663_370
    assert convnet.parameters(deep) - convnet.parameters(original) == 512 * 512 + 10 * 10 == 262_244
    assert convnet.parameters(convnet.build("low-rank", dl.seeded(0))) == 1_663_370 - 3136 * 512 + 64 * (3136 + 512)
    assert convnet.TUTORIAL == {"channels": (32, 64), "kernel": 5, "hidden": 512, "dropout": 0.5}


@pytest.mark.parametrize("variant", convnet.VARIANTS)
def test_the_start_is_the_tutorials(variant):
    net = convnet.build(variant, dl.seeded(1), std=0.02)
    first, second = net.convolutions
    assert (first.bias == 0).all() and (second.bias == 0.1).all()
    for weight in (first.weight, second.weight, *([] if variant in ("folded", "low-rank") else
                                                  [getattr(net.dense, "weight", None) if variant == "original"
                                                   else net.dense[0].weight])):
        assert weight.abs().max() <= 0.2 and abs(weight.std() - 0.088) < 0.003  # a normal cut at two deviations
    if variant == "deep":
        assert net.dense[1].weight.abs().max() <= 0.04 and abs(net.dense[1].weight.std() - 0.0176) < 1e-3
        assert net.dense[0].bias is None and (net.dense[1].bias == 0.1).all()
    if variant == "identity":
        assert torch.equal(net.output[1].weight, torch.eye(10))


@pytest.mark.parametrize("variant", convnet.VARIANTS)
def test_a_folded_net_is_the_same_function(variant):
    X, y = digits()
    net = convnet.build(variant, dl.seeded(2), **TINY).double()
    convnet.train(net, X.double(), y, 0.05, 5, batch=8)
    folded = convnet.fold(net)
    assert (folded(X.double()) - net(X.double())).abs().max() < 1e-12
    assert convnet.parameters(folded) == convnet.parameters(convnet.build("original", dl.seeded(0), **TINY))
    before = net.dense[0].weight.clone() if variant == "deep" else None
    with torch.no_grad():
        folded.dense.weight += 1
    if variant == "deep":  # a copy, not a view
        assert torch.equal(net.dense[0].weight, before)
    assert (folded(X.double()) - net(X.double())).abs().max() > 0.1  # control


def test_starts_that_are_the_same_function():
    X = digits()[0]
    nets = {variant: convnet.build(variant, dl.seeded(3), **TINY).eval() for variant in convnet.VARIANTS}
    assert torch.equal(nets["identity"](X), nets["original"](X))
    assert (nets["folded"](X) - nets["deep"](X)).abs().max() < 1e-5
    assert (nets["deep"](X) - nets["original"](X)).abs().max() > 1e-2


@pytest.mark.parametrize("penalise, variant", [*((choice, "deep") for choice in CHOICES), ("product", "low-rank"),
                                               ("product", "original"), ("old", "original"), ("none", "original")])
def test_two_steps_by_hand(penalise, variant):
    X, y = digits()
    X = X.double()
    net = convnet.build(variant, dl.seeded(4), **TINY).double()
    hand = convnet.build(variant, dl.seeded(4), **TINY).double()
    run = convnet.train(net, X, y, 0.1, 2, batch=20, order="tutorial", decay=0.5, penalty=0.3, penalise=penalise)
    velocity = [torch.zeros_like(p) for p in hand.parameters()]
    for step in range(2):
        rows = slice(20 * step % 20, 20 * step % 20 + 20)  # the tutorial's offsets: 20 step mod (40 - 20)
        data = F.cross_entropy(hand(X[rows]), y[rows])
        penalty = 0.3 / 2 * sum(w.square().sum() for w in punished(hand, penalise))
        assert abs(run.data[step] - data) < 1e-12 and (step or abs(run.penalty[0] - penalty) < 1e-12)
        hand.zero_grad()
        (data + penalty).backward()
        with torch.no_grad():
            for p, v in zip(hand.parameters(), velocity):
                v.mul_(0.9).add_(p.grad)
                p.sub_(0.1 * 0.5 ** (step * 20 // 40) * v)
    for p, q in zip(net.parameters(), hand.parameters()):
        assert (p - q).abs().max() < 1e-12


def punished(net, penalise):
    """What the squares are of: biases and, by the choice, matrices or products, which autograd differentiates."""
    found = [] if penalise == "none" else [module.bias if hasattr(module, "bias") else module[-1].bias
                                           for module in (net.dense, net.output)]
    for module in (net.dense, net.output):
        factors = [layer.weight for layer in module] if isinstance(module, torch.nn.Sequential) else [module.weight]
        found += {"both": factors, "old": factors[:1], "new": factors[1:], "none": [],
                  "product": [dl.end_to_end(factors)]}[penalise]
    return found


def test_the_penalty_of_a_net_without_products_is_the_tutorials():
    X, y = digits()
    found = {}
    for variant in ("original", "deep"):
        for penalise in ("product", "both"):
            net = convnet.build(variant, dl.seeded(4), **TINY)
            run = convnet.train(net, X, y, 0.1, 30, batch=8, penalise=penalise)
            found[variant, penalise] = torch.cat([run.data, run.penalty, *(p.detach().flatten() for p in net.parameters())])
    assert torch.equal(found["original", "product"], found["original", "both"])
    assert not torch.equal(found["deep", "product"], found["deep", "both"])


class Interrupted(Exception):
    pass


def interrupt_at(step):
    def report(now):
        if now == step:
            raise Interrupted

    return report


@pytest.mark.parametrize("order, momentum, variant", [("shuffled", 0.9, "deep"), ("tutorial", 0.9, "original"),
                                                      ("shuffled", 0.0, "low-rank")])
def test_a_run_goes_on_from_its_checkpoint_bit_for_bit(tmp_path, order, momentum, variant):
    X, y = digits()
    checkpoint = dl.recorded.Checkpoint(tmp_path / "run.npz", "a run")

    def run(checkpoint=None, report=None, lr=0.05):
        net = convnet.build(variant, dl.seeded(0), **{**TINY, "dropout": 0.5})
        found = convnet.train(net, X, y, lr, 70, batch=8, momentum=momentum, penalise="product", order=order,
                              checkpoint=checkpoint, report=report)
        return [found.data, found.penalty, found.at, *(p.detach() for p in net.parameters())]

    whole = run()
    for step in (20, 60):
        with pytest.raises(Interrupted):
            run(checkpoint, interrupt_at(step))
        assert checkpoint.load()["step"] == step
    with pytest.raises(dl.recorded.RecordError, match="other starts, data, rates or steps"):
        run(checkpoint, lr=0.06)
    resumed = run(checkpoint)
    assert len(whole) == len(resumed) and all(torch.equal(a, b) for a, b in zip(whole, resumed))


def test_a_run_that_diverges_after_its_last_checkpoint_does_so_again(tmp_path):
    X, y = digits(count=400)
    X[240] = math.nan  # in the batch of step 30
    checkpoint = dl.recorded.Checkpoint(tmp_path / "run.npz", "a run", seconds=0.0)
    for _ in ("whole", "resumed"):
        net = convnet.build("deep", dl.seeded(0), **TINY)
        run = convnet.train(net, X, y, 0.05, 60, batch=8, order="tutorial", checkpoint=checkpoint)
        assert run.diverged_at == 30 and run.data[30:].isnan().all() and run.data[:30].isfinite().all()
        assert checkpoint.load()["step"] == 20 and len(run.penalty) == 2


def test_batches_cover_a_pass_and_follow_the_seed():
    def first(order, seed, steps):
        batches = convnet.batches(10, 3, order, seed, torch.device("cpu"))
        return [next(batches).tolist() for _ in range(steps)]

    shuffled = first("shuffled", 0, 6)
    assert len({i for batch in shuffled[:3] for i in batch}) == 9 and shuffled[:3] != shuffled[3:]
    assert shuffled == first("shuffled", 0, 6) != first("shuffled", 1, 6)
    assert first("tutorial", 0, 4) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [2, 3, 4]]


def test_a_run_depends_on_its_seed_alone():
    X, y = digits()
    state = torch.random.get_rng_state()
    runs = [convnet.train(convnet.build("original", dl.seeded(0), **{**TINY, "dropout": 0.5}), X, y, 0.05, 30, batch=8,
                          seed=seed).data for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_divergence_is_a_result():
    X, y = digits()
    run = convnet.train(convnet.build("deep", dl.seeded(0), **TINY), X, y, 1e8, 60, batch=8)
    assert 0 < run.diverged_at < 60 and run.data[:run.diverged_at].isfinite().all()
    assert run.data[run.diverged_at:].isnan().all() and len(run.penalty) == len(run.at)


def test_steps_to_counts_with_means_of_a_window():
    losses = torch.cat([torch.linspace(2, 0, 101), torch.full((20,), math.nan)]).double()
    assert convnet.steps_to(losses, 1.0, window=1) == 51
    assert convnet.steps_to(losses, 1.0, window=11) == 51 + 5
    assert convnet.steps_to(losses, -0.1) == math.inf


def test_what_is_wrong_is_named(monkeypatch):
    X, y = digits()
    net = convnet.build("original", dl.seeded(0), **TINY)
    with pytest.raises(ValueError, match="variant is 'wide'; expected one of original"):
        convnet.build("wide", dl.seeded(0))
    with pytest.raises(ValueError, match="std is -1"):
        convnet.build("deep", dl.seeded(0), std=-1)
    with pytest.raises(ValueError, match="order is 'sorted'"):
        convnet.train(net, X, y, 0.1, 1, order="sorted")
    with pytest.raises(ValueError, match="40 images, 39 labels"):
        convnet.train(net, X, y[:39], 0.1, 1)

    with pytest.raises(ValueError, match="penalise is 'all'; expected one of both, old, new, product, none"):
        convnet.train(net, X, y, 0.1, 1, batch=8, penalise="all")
    with pytest.raises(ValueError, match="penalise is 'new' and no layer of the net is a product"):
        convnet.train(net, X, y, 0.1, 1, batch=8, penalise="new")

    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(convnet, "_step", no_memory)
    with pytest.raises(MemoryError, match="no memory on cpu for a batch of 8; expected enough for one step"):
        convnet.train(net, X, y, 0.1, 1, batch=8)


def test_evaluate_counts_errors_without_dropout():
    X, y = digits()
    net = convnet.build("original", dl.seeded(0), **{**TINY, "dropout": 0.5})
    loss, errors = convnet.evaluate(net, X, y, batch=7)
    logits = net.eval()(X)
    assert abs(loss - F.cross_entropy(logits, y).item()) < 1e-6
    assert errors == (logits.argmax(1) != y).double().mean().item()


def test_factors_that_do_not_fit_have_no_decay():
    with pytest.raises(ValueError, match=r"W1 has shape \(3, 5\) and W2 \(2, 4\); expected \(h, d\) and \(k, h\)"):
        dl.decay.product(torch.ones(3, 5), torch.ones(2, 4), [0.0])
    assert dl.decay.product(torch.zeros(2, 3), torch.ones(1, 2), [0.0, 1.0]).tolist() == [0, 0]
