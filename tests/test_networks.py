"""The laws of networks, each against one exact step of gradient descent; what is not understood is refused by name."""


import deeplinear as dl
import pytest
import torch
from deeplinear import networks
from network_step import Net, between, example_of, frozen, prepared, step, texts
from torch import nn
from torch.nn import functional as F

Linear, Conv = nn.Linear, nn.Conv2d
TOKENS, IMAGES = (2, 5, 3), (2, 1, 8, 8)


def lenet():
    def forward(net, x):
        for conv in (net.c1, net.c2):
            x = F.max_pool2d(F.relu(conv(x)), 2)
        x = F.relu(net.f1(x.view(x.size(0), -1)))
        return F.log_softmax(net.f3(F.relu(net.f2(x))), dim=1)

    return Net(forward, c1=Conv(1, 6, 5, padding=2), c2=Conv(6, 16, 5), f1=Linear(400, 12), f2=Linear(12, 7), f3=Linear(7, 10))


def dense_block():
    def forward(net, x):
        x = torch.relu(net.a(x))
        x = torch.cat([x, torch.relu(net.b(x))], 1)
        return net.d(F.interpolate(F.avg_pool2d(net.c(x), 2), scale_factor=2))

    return Net(forward, a=Conv(1, 3, 3, padding=1), b=Conv(3, 2, 3, padding=1), c=Conv(5, 4, 1), d=Conv(4, 1, 1))


def tied_bias():
    net = nn.Sequential(Linear(3, 4), nn.ReLU(), Linear(4, 4), nn.ReLU(), Linear(4, 2))
    net[2].bias = net[0].bias
    return net


def read_elsewhere(net, x):
    return net.b(torch.relu(net.a(x))) + F.linear(x, net.a.weight[:2])


def mixture():
    def forward(net, x):
        hidden = torch.relu(torch.einsum("ni,kio->kno", x, net.a))
        return torch.einsum("nk,kno->no", net.choose(x).softmax(-1), torch.einsum("kni,kio->kno", hidden, net.b))

    return Net(forward, choose=Linear(3, 2), a=nn.Parameter(torch.ones(2, 3, 4)), b=nn.Parameter(torch.ones(2, 4, 2)))


# What each network keeps: the law, its shape and its numbers; an empty list where nothing is kept.
READ = {
    "dense layers": (lambda: nn.Sequential(Linear(3, 4), nn.ReLU(), Linear(4, 2)), (5, 3),
                     [("|2.weight|^2 - |0.weight|^2 - |0.bias|^2", (4,), 4)]),
    "one unit": (lambda: nn.Sequential(Linear(3, 1), nn.LeakyReLU(), Linear(1, 2)), (5, 3),
                 [("|2.weight|^2 - |0.weight|^2 - |0.bias|^2", (1,), 1)]),
    "dense on tokens, flattened": (lambda: nn.Sequential(Linear(3, 4), nn.ReLU(), nn.Flatten(), Linear(20, 2)), TOKENS,
                                   [("|3.weight|^2 - |0.weight|^2 - |0.bias|^2", (4,), 4)]),
    "dense on an image's rows": (lambda: nn.Sequential(Conv(1, 3, 3), nn.ReLU(), Linear(6, 2)), IMAGES,
                                 [("|2.weight|^2 - |0.weight|^2 - |0.bias|^2", (1,), 1)]),
    "flatten(2)": (lambda: nn.Sequential(Conv(1, 3, 3), nn.ReLU(), nn.Flatten(2), Linear(36, 2)), IMAGES,
                   [("|3.weight|^2 - |0.weight|^2 - |0.bias|^2", (1,), 1)]),
    "a view that mixes units": (
        lambda: Net(lambda net, x: net.b(torch.relu(net.a(x)).view(-1, 4)), a=Linear(4, 8), b=Linear(4, 2)), (5, 4),
        [("|b.weight|^2 - |a.weight|^2 - |a.bias|^2", (4,), 4)]),
    "a bias of two layers": (tied_bias, (5, 3), [
        ("|columns of 2.weight|^2 + |4.weight|^2 - |0.weight|^2 - |0.bias|^2 - |rows of 2.weight|^2", (4,), 4)]),
    "a frozen layer": (lambda: frozen(bias=False), (5, 3), [("|3.weight|^2 - |0.weight|^2 - |0.bias|^2", (1,), 1)]),
    "LeNet": (lenet, (2, 1, 28, 28), [
        ("|c2.weight|^2 - |c1.weight|^2 - |c1.bias|^2", (6,), 6), ("|f1.weight|^2 - |c2.weight|^2 - |c2.bias|^2", (16,), 16),
        ("|f2.weight|^2 - |f1.weight|^2 - |f1.bias|^2", (12,), 12), ("|f3.weight|^2 - |f2.weight|^2 - |f2.bias|^2", (7,), 7)]),
    "an inner and a stream law": (
        lambda: Net(lambda net, x: (lambda h: net.o(h + net.b(torch.relu(net.a(h)))))(net.e(x)),
                    e=Linear(3, 5), a=Linear(5, 6), b=Linear(6, 5), o=Linear(5, 2)), (5, 3), [
            ("<a.weight> + <o.weight> - <e.weight> - <e.bias> - <b.weight> - <b.bias>", (5, 5), 15),
            ("|b.weight|^2 - |a.weight|^2 - |a.bias|^2", (6,), 6)]),
    "a stream that starts at the data": (
        lambda: Net(lambda net, x: net.o(x + net.b(torch.relu(net.a(x)))), a=Linear(3, 6), b=Linear(6, 3), o=Linear(3, 2)),
        (5, 3), [("|b.weight|^2 - |a.weight|^2 - |a.bias|^2", (6,), 6)]),
    "one dimension": (lambda: nn.Sequential(nn.Conv1d(2, 3, 3), nn.PReLU(), nn.Conv1d(3, 4, 3), nn.AdaptiveMaxPool1d(1),
                                            nn.Flatten(), Linear(4, 2)), (2, 2, 9), [
        ("|2.weight|^2 - |0.weight|^2 - |0.bias|^2", (3,), 3), ("|5.weight|^2 - |2.weight|^2 - |2.bias|^2", (4,), 4)]),
    "three dimensions": (lambda: nn.Sequential(nn.Conv3d(2, 3, 2), nn.Conv3d(3, 2, 2)), (2, 2, 4, 4, 4), [
        ("<1.weight> - <0.weight> - <0.bias>", (3, 3), 6)]),
    "transposed and grouped": (
        lambda: nn.Sequential(Conv(2, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), nn.ReLU(), Conv(6, 2, 1)),
        (2, 2, 6, 6), [("|2.weight|^2 - |0.weight|^2 - |0.bias|^2", (4,), 4), ("|4.weight|^2 - |2.weight|^2 - |2.bias|^2", (6,), 6)]),
    "grouped, linear": (lambda: nn.Sequential(Conv(2, 4, 3), Conv(4, 6, 3, groups=2), Conv(6, 2, 1)), (2, 2, 8, 8), [
        ("<1.weight> - <0.weight> - <0.bias>", (2, 2, 2), 6), ("<2.weight> - <1.weight> - <1.bias>", (2, 3, 3), 12)]),
    "depthwise": (lambda: nn.Sequential(Conv(2, 4, 3), Conv(4, 4, 3, groups=4), Conv(4, 2, 1)), (2, 2, 8, 8), [
        ("|1.weight|^2 - |0.weight|^2 - |0.bias|^2", (4,), 4), ("|2.weight|^2 - |1.weight|^2 - |1.bias|^2", (4,), 4)]),
    "pools and dropout": (lambda: nn.Sequential(Conv(1, 3, 3), nn.Dropout2d(), nn.AdaptiveMaxPool2d(2), nn.Flatten(), Linear(12, 2)),
                          IMAGES, [("|4.weight|^2 - |0.weight|^2 - |0.bias|^2", (3,), 3)]),
    "constants and clamp": (
        lambda: Net(lambda net, x: net.b(0.5 * net.a(x).clamp(min=0).relu_()), a=Linear(3, 4), b=Linear(4, 2)), (5, 3),
        [("|b.weight|^2 - |a.weight|^2 - |a.bias|^2", (4,), 4)]),
    "permuted and flattened": (
        lambda: Net(lambda net, x: net.b(net.a(x).permute(0, 2, 3, 1).flatten(1)), a=Conv(1, 4, 3), b=Linear(144, 2)), IMAGES,
        [("<b.weight> - <a.weight> - <a.bias>", (4, 4), 10)]),
    "concatenated": (dense_block, IMAGES, [
        ("|b.weight|^2 + |c.weight[:, :3]|^2 - |a.weight|^2 - |a.bias|^2", (3,), 3),
        ("|c.weight[:, 3:5]|^2 - |b.weight|^2 - |b.bias|^2", (2,), 2), ("<d.weight> - <c.weight> - <c.bias>", (4, 4), 10)]),
    "an embedding": (lambda: nn.Sequential(nn.Embedding(10, 4), Linear(4, 2)), torch.arange(10).reshape(2, 5), [
        ("<1.weight> - <0.weight>", (4, 4), 10)]),
    "batch norm": (lambda: nn.Sequential(Conv(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), Conv(3, 2, 3)), IMAGES, [
        ("|3.weight|^2 - |1.weight|^2 - |1.bias|^2", (3,), 3)]),
    "a power": (lambda: Net(lambda net, x: net.b(torch.relu(net.a(x)) ** 2), a=Linear(3, 4), b=Linear(4, 2)), (5, 3), [
        ("2 |b.weight|^2 - |a.weight|^2 - |a.bias|^2", (4,), 4)]),
    "a product of two layers": (
        lambda: Net(lambda net, x: net.c(torch.relu(F.linear(x, net.b.weight @ net.a.weight, net.b.bias))),
                    a=Linear(3, 4, bias=False), b=Linear(4, 5), c=Linear(5, 2)), (5, 3), [
            ("<b.weight> - <a.weight>", (4, 4), 10), ("|c.weight|^2 - |b.weight|^2 - |b.bias|^2", (5,), 5)]),
    "two parts scaled apart": (
        lambda: Net(lambda net, x: (lambda h: net.b(torch.cat([2 * h[:, :2], h[:, 2:]], 1)))(net.a(x)), a=Linear(3, 4), b=Linear(4, 2)),
        (5, 3), [("<b.weight> - <a.weight> - <a.bias>", (2, 2, 2), 6)]),
    "units added in pairs": (
        lambda: Net(lambda net, x: (lambda h: net.b((h + torch.stack([h[:, 1], h[:, 0], h[:, 3], h[:, 2]], 1))[:, ::3]))(net.a(x)),
                    a=Linear(3, 4), b=Linear(2, 2)), (5, 3), [("|b.weight|^2 - |a.weight|^2 - |a.bias|^2", (2,), 2)]),
    "a detached branch": (
        lambda: Net(lambda net, x: (lambda h: net.b(h) + net.c(h.detach()))(torch.relu(net.a(x))), a=Linear(3, 4), b=Linear(4, 2),
                    c=Linear(4, 2)), (5, 3), [("|b.weight|^2 - |a.weight|^2 - |a.bias|^2", (4,), 4)]),
    "weights one matrix a choice": (mixture, (5, 3), [("|b|^2 - |a|^2", (8,), 8)]),
    "an adapter": (lambda: Net(lambda net, x: net.w(x) + 0.5 * net.b(net.a(x)), w=Linear(3, 4).requires_grad_(False),
                               a=Linear(3, 2, bias=False), b=Linear(2, 4, bias=False)), (5, 3), [
        ("<b.weight> - <a.weight>", (2, 2), 3)]),
    "weights from the left": (
        lambda: Net(lambda net, x: net.b @ (net.a @ x.T), a=nn.Parameter(torch.ones(4, 3)), b=nn.Parameter(torch.ones(2, 4))), (5, 3),
        [("<b> - <a>", (4, 4), 10)]),
    "a weight read elsewhere": (lambda: Net(read_elsewhere, a=Linear(3, 4), b=Linear(4, 2)), (5, 3), [
        ("|b.weight[:, 2:4]|^2 - |a.weight[2:4]|^2 - |a.bias[2:4]|^2", (2,), 2)]),
}


def test_a_matrix_with_both_sides_on_one_axis_has_no_gram_law():
    net = Net(lambda net, x: net.d(net.c(net.a(x * net.g).transpose(1, 2)).transpose(1, 2) @ net.a.weight), g=nn.Parameter(torch.ones(4)),
              a=Linear(4, 4, bias=False), c=nn.ConvTranspose1d(4, 4, 3, padding=1, groups=2), d=Linear(4, 2))
    example = example_of((2, 4, 4))
    laws = dl.laws(net, example)
    assert not any(law.gram for law in laws) and laws.count == 9
    assert step(prepared(net), laws, example)[0] < 1e-14


@pytest.mark.parametrize("name", READ)
def test_a_law_is_kept_by_every_step(name):
    build, shape, expected = READ[name]
    net, example = build(), example_of(shape)
    laws = dl.laws(net, example)
    assert texts(laws) == expected
    for scale in (0.3, 3.0):
        defect, change = step(prepared(net, scale), laws, example)
        assert defect < 1e-14 and change > 1e-13  # it does change, at second order


# What is not kept, or not understood: {parameters: reason} of what is refused, and how many laws are left.


@pytest.mark.parametrize("dims", [(3, 4, 2), (2, 5, 2), (4, 1, 3), (3, 4, 6, 2), (2, 6, 5, 1, 3)])
@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_the_laws_number_as_many_as_the_balances(dims, activation):
    layers = [part for pair in zip(dims, dims[1:]) for part in (Linear(*pair, bias=False), nn.ReLU())][:-1]
    laws = dl.laws(nn.Sequential(*(layers if activation == "relu" else layers[::2])), torch.ones(3, dims[0]))
    assert laws.count == dl.conservation.count_laws(dims, activation).balances
    assert len(laws) == len(dims) - 2


def test_the_law_of_a_linear_chain_is_the_imbalance():
    net = nn.Sequential(Linear(3, 4, bias=False), Linear(4, 2, bias=False)).double()
    (law,) = dl.laws(net, torch.ones(5, 3))
    assert law.parameters == ("0.weight", "1.weight") and law.shape == (4, 4)
    torch.testing.assert_close(law.value(), dl.imbalance([net[0].weight.detach(), net[1].weight.detach()])[0], rtol=0, atol=1e-15)


def test_the_drift_of_a_run_is_what_it_did_not_keep():
    net, X = prepared(between(nn.ReLU())(), 0.5), example_of((20, 3)).double()
    laws, before = dl.laws(net, X), {name: value.clone() for name, value in net.state_dict().items()}
    assert laws.drift(before).tolist() == [0.0]
    drifts = []
    for steps in (100, 200):  # the same time
        net.load_state_dict(before)
        optimizer = torch.optim.SGD(net.parameters(), lr=1 / steps)
        for _ in range(steps):
            optimizer.zero_grad()
            (net(X) - X[:, :2] ** 2).square().mean().backward()
            optimizer.step()
        drifts.append(laws.drift(before).item())
    assert 1e-4 < drifts[1] < 0.6 * drifts[0]  # of the first order in the rate
    moved = torch.cat([(net.state_dict()[name] - before[name]).flatten() for name in before]).norm()
    assert drifts[1] < 0.1 * moved


def test_a_drift_from_what_is_no_state_dict_says_so():
    net = between(nn.ReLU())()
    laws, state = dl.laws(net, torch.ones(5, 3)), net.state_dict()
    with pytest.raises(ValueError, match="before has no 0.weight, but module.0.weight, .*; expected a state dict with the names"):
        laws.drift({f"module.{name}": value for name, value in state.items()})
    with pytest.raises(TypeError, match="before is a list; expected a state dict"):
        laws.drift(list(state.values()))
    assert dl.laws(Linear(3, 2), torch.ones(5, 3)).drift(state).shape == (0,)


def test_the_network_stays_as_it_was():
    net = nn.Sequential(Conv(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(), nn.ReLU(), Conv(3, 2, 3)).half()
    net[1].eval()
    net[0].weight.grad = torch.ones_like(net[0].weight)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    parameters = list(net.parameters())
    random = torch.get_rng_state()
    laws = dl.laws(net, torch.ones(2, 1, 8, 8).half())
    assert len(laws) == 1 and laws[0].value().dtype == torch.float16
    assert torch.equal(torch.get_rng_state(), random) and torch.get_default_dtype() == torch.float32
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(now is before for now, before in zip(net.parameters(), parameters))
    assert [parameter.grad is None for parameter in net.parameters()] == [False] + 5 * [True]
    assert [module.training for module in net] == [True, False, True, True, True]


def test_keywords_and_what_is_no_example():
    class Keyword(Net):
        def forward(self, *, data):
            return self.by(self, data)

    net = Keyword(lambda net, x: net.b(torch.relu(net.a(x))), a=Linear(3, 4), b=Linear(4, 2))
    assert len(dl.laws(net, {"data": torch.ones(5, 3)})) == 1
    net.forward = lambda *, data: net.by(net, data)  # which no copy of the network takes along
    assert len(dl.laws(net, {"data": torch.ones(5, 3)})) == 0
    with pytest.raises(TypeError, match="example is a list; expected a tensor, a tuple of arguments or a dict"):
        dl.laws(net, [torch.ones(5, 3)])


def test_the_table_names_parameters_laws_shapes_numbers_and_what_was_refused():
    net = nn.Sequential(Linear(3, 4), nn.ReLU(), Linear(4, 5), nn.Tanh(), Linear(5, 2))
    laws = dl.laws(net, torch.ones(5, 3))
    norm = f"{torch.linalg.vector_norm(laws[0].value()).item():.3g}"
    assert str(laws).splitlines() == [
        "shape  numbers  norm now  law",
        "-----  -------  --------  ---",
        f"    4        4  {norm:>8}  |2.weight|^2 - |0.weight|^2 - |0.bias|^2",
        "refused  2.weight, 2.bias: tanh at 3 Tanh"]
    with pytest.raises(ValueError, match="0.weight has no gradient"):
        laws[0].change()


def test_a_law_that_is_read_wrongly_is_caught(monkeypatch):
    monkeypatch.setitem(networks.OPERATIONS, "hardtanh", networks.OPERATIONS["relu"])
    laws = dl.laws(between(nn.ReLU6())(), example_of((5, 3)))
    assert len(laws) == 0
    (refused,) = laws.refused
    assert refused.parameters == ("0.weight", "0.bias", "2.weight") and "read, but its defect is" in refused.reason


def test_a_sum_of_squares_across_relu_is_no_gram_law():
    net, x = between(nn.ReLU())(), example_of((5, 3))
    (law,) = dl.laws(net, x)
    terms = tuple(networks.law.Term(term.name, term.coefficient, term.entries[None], term.label) for term in law.terms)
    pairs = networks.Law(terms, True, net)
    assert step(prepared(net), [pairs], x, rate=1e-3)[0] > 1e-8
    assert step(prepared(net), [law], x, rate=1e-3)[0] < 1e-14


def test_more_numbers_than_can_be_counted_are_refused():
    laws = dl.laws(nn.Sequential(Linear(300, 300), Linear(300, 300)), torch.ones(1, 300))
    with pytest.raises(ValueError, match="the laws have 45150 numbers and 180300 parameters; expected a product of at most"):
        print(laws.count)
    assert laws[0].count == 45150
