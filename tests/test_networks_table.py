"""The table of what is read: every kind of module that the library promises, with its laws or the reason why it is refused."""

import warnings

import deeplinear as dl
import pytest
import test_networks
import test_networks_attention
import test_networks_positions
import test_networks_refused
import torch
from network_step import Net, between, prepared, step, texts
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

Linear, CONV = nn.Linear, {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
X, SEQUENCE, IMAGE = (dl.normal(*shape, generator=dl.seeded(2)).float() for shape in ((5, 3), (2, 5, 3), (2, 1, 8, 8)))
UNIT = ["|2.weight|^2 - |0.weight|^2 - |0.bias|^2"]
ALL = ["<2.weight> - <0.weight> - <0.bias>"]


def between_images(part, axes):
    return lambda: nn.Sequential(CONV[axes](1, 3, 3), part(), CONV[axes](3, 2, 1))


# name: network, axes of its images, laws
POOLED = {f"{kind}{axes}d": (between_images(lambda kind=kind, axes=axes: getattr(nn, f"{kind}{axes}d")(2), axes), axes,
                             UNIT if "Max" in kind else ALL)
          for kind in ("MaxPool", "AvgPool", "AdaptiveMaxPool", "AdaptiveAvgPool") for axes in CONV} | {
    f"Dropout{axes}d": (between_images(getattr(nn, f"Dropout{axes}d"), axes), axes, UNIT) for axes in CONV} | {
    f"FractionalMaxPool{axes}d": (between_images(lambda axes=axes: getattr(nn, f"FractionalMaxPool{axes}d")(2, output_size=3), axes),
                                  axes, UNIT) for axes in (2, 3)}
ACTIVE = ["ReLU", "LeakyReLU", "RReLU", "PReLU", "Dropout"]
REFUSED = {"ReLU6": "hardtanh", "Hardtanh": "hardtanh", "Softsign": "add", "Softmin": "softmax", "Tanhshrink": "tanh"} | {
    kind: kind.lower() for kind in ("ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Softplus", "Sigmoid", "Hardsigmoid", "Hardswish",
                                    "Tanh", "Softshrink", "Hardshrink", "Softmax", "Threshold")} | {
    "LogSigmoid": "log_sigmoid", "LogSoftmax": "log_softmax", "AlphaDropout": "alpha_dropout",
    "FeatureAlphaDropout": "feature_alpha_dropout"}
RECURRENT = {"RNN": "rnn_tanh", "LSTM": "lstm", "GRU": "gru", "RNNCell": "rnn_tanh_cell", "LSTMCell": "lstm_cell", "GRUCell": "gru_cell"}


def made(name):
    arguments = {"Threshold": (0.0, 0.0), "Softmax": (-1,), "Softmin": (-1,), "LogSoftmax": (-1,)}
    return getattr(nn, name)(*arguments.get(name, ()))


def held(net, example, expected):
    laws = dl.laws(net, example)
    assert [str(law) for law in laws] == expected
    assert step(prepared(net), laws, example)[0] < 1e-13
    assert all("misread" not in one.reason and "its defect is" not in one.reason for one in laws.refused)
    return laws


@pytest.mark.parametrize("name", POOLED)
def test_pools_and_dropout_of_every_dimension_are_read(name):
    build, axes, expected = POOLED[name]
    held(build(), dl.normal(2, 1, *axes * [8], generator=dl.seeded(0)).float(), expected)


@pytest.mark.parametrize("name", ACTIVE)
def test_homogeneous_activations_are_read(name):
    held(between(made(name))(), X, UNIT)


@pytest.mark.parametrize("name", REFUSED)
def test_other_activations_are_refused_by_name(name):
    laws = dl.laws(between(made(name))(), X)
    assert len(laws) == 0
    one = laws.refused[0]
    assert one.parameters == ("0.weight", "0.bias") and one.reason.startswith(f"{REFUSED[name]} at 1 {name}")


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_are_refused_by_name(name):
    cell = name.endswith("Cell")
    net = Net(lambda net, x: (lambda y: net.b(y[0] if isinstance(y, tuple) else y))(net.a(net.e(x))),
              e=Linear(3, 3), a=getattr(nn, name)(3, 4), b=Linear(4, 2))
    laws = dl.laws(net, X if cell else SEQUENCE)
    assert len(laws) == 0
    assert {one.parameters[0]: one.reason for one in laws.refused}["e.weight"] == f"{RECURRENT[name]} at a {name}"


def num_flat_features(net, x):
    x = F.max_pool2d(F.relu(net.a(x)), 2)
    size = 1
    for s in x.size()[1:]:
        size *= s
    return torch.sigmoid(net.b(x.view(-1, size)))


def alias():
    """A plain tensor that shares the storage of a weight: no gradient goes through it, so that every step keeps the law."""
    net = Net(lambda net, x: net.b(torch.relu(net.a(x))) + x[:, :2] * net.alias.sum(), a=Linear(3, 4), b=Linear(4, 2))
    net.alias = net.a.weight.data
    return net


def gains(norm):
    return lambda: nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Conv2d(4, 2, 3))


MORE = {
    "num_flat_features and a final sigmoid": (lambda: Net(num_flat_features, a=nn.Conv2d(1, 3, 3), b=Linear(27, 2)), IMAGE,
                                              ["|b.weight|^2 - |a.weight|^2 - |a.bias|^2"]),
    "all parameters in one": (lambda: Net(lambda net, x: F.linear(torch.relu(F.linear(x, net.w[:12].view(4, 3))), net.w[12:].view(2, 4)),
                                          w=nn.Parameter(torch.ones(20))), X, ["|w[12:20]|^2 - |w[:12]|^2"]),
    "a plain tensor of one storage": (alias, X, ["|b.weight|^2 - |a.weight|^2 - |a.bias|^2"]),
    "a sparse embedding": (lambda: nn.Sequential(nn.Embedding(10, 4, sparse=True), Linear(4, 2)), torch.arange(10), [
        "<1.weight> - <0.weight>"]),
    "group norm": (gains(nn.GroupNorm(2, 4)), IMAGE, ["|3.weight|^2 - |1.weight|^2 - |1.bias|^2"]),
    "instance norm": (gains(nn.InstanceNorm2d(4, affine=True)), IMAGE, ["|3.weight|^2 - |1.weight|^2 - |1.bias|^2"]),
    "layer norm without eps": (lambda: nn.Sequential(Linear(3, 4), nn.LayerNorm(4, eps=0.0), nn.ReLU(), Linear(4, 2)), X, [
        "|0.weight|^2 + |0.bias|^2", "|3.weight|^2 - |1.weight|^2 - |1.bias|^2"]),
    "a norm of each row of a mixed axis": (
        lambda: Net(lambda net, x: net.b(F.rms_norm(net.a(x).transpose(1, 2), (4,), eps=0.0)), a=nn.Conv1d(5, 4, 1, bias=False),
                    b=Linear(4, 2)), SEQUENCE, ["|a.weight|^2"])}


@pytest.mark.parametrize("name", MORE)
def test_more_that_is_read(name):
    held(MORE[name][0](), *MORE[name][1:])


def pruned():
    net = between(nn.ReLU())()
    prune.l1_unstructured(net[0], "weight", 0.5)
    return net


def in_half(net, x):
    return net.b(torch.relu(net.a(x)).half().to(x.dtype))


def by_autocast(net, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return net.b(torch.relu(net.a(x)))


@pytest.mark.parametrize("build, example, reason", [
    (pruned, X, "a hook on 0"), (lambda: nn.Sequential(nn.LazyLinear(4), nn.ReLU(), Linear(4, 2)), X, "0.weight is lazy"),
    (lambda: Net(in_half, a=Linear(3, 4), b=Linear(4, 2)), X, "to at forward Net"),
    (lambda: Net(by_autocast, a=Linear(3, 4), b=Linear(4, 2)), X, "wrap_with_autocast"),
    (lambda: nn.Sequential(nn.EmbeddingBag(10, 4), Linear(4, 2)), torch.arange(10).reshape(2, 5), "embedding_bag at 0 EmbeddingBag"),
    (lambda: Net(lambda net, x: net.b(net.a(x, x)), a=nn.Bilinear(3, 3, 4), b=Linear(4, 2)), X, "bilinear at a Bilinear")])
def test_more_that_is_refused(build, example, reason):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        laws = dl.laws(build(), example)
    assert len(laws) == 0 and any(one.reason.startswith(reason) for one in laws.refused), laws.refused


def test_what_a_block_refuses_says_why():
    """The rows of attention's table that keep nothing: the stream behind norms, the gate, queries and keys behind norms."""
    reasons = {one.parameters: one.reason for one in dl.laws(test_networks_attention.GPT(), test_networks_attention.WORDS).refused}
    assert reasons == {("table.weight", "place", "attend.o.weight", "down.weight"): "rms_norm at n1 RMSNorm, whose eps is 1e-05, not 0",
                       ("gate.weight",): "silu at forward GPT"}
    after = dl.laws(nn.TransformerEncoderLayer(8, 2, 6, batch_first=True), test_networks_attention.X).refused
    assert {one.parameters: one.reason for one in after} == {
        ("self_attn.out_proj.weight", "self_attn.out_proj.bias"):
            "joined to what no parameter scales, add at forward TransformerEncoderLayer"}
    decoder = dl.laws(Net(lambda net, x: net.a(x, x), a=nn.TransformerDecoderLayer(8, 2, 6, batch_first=True)), test_networks_attention.X)
    assert sorted(count for _, _, count in texts(decoder)) == [6, 8, 8, 20, 20, 20, 20]


# Where each row of the promise is held: kind of module, the table of a test's cases, and the case.
R, A, N = test_networks.READ, test_networks_attention.KEPT, test_networks_refused.REFUSED
HELD = {
    "dense on tokens": (R, "dense on tokens, flattened"), "convolution, then dense along rows": (R, "dense on an image's rows"),
    "flatten(2)": (R, "flatten(2)"), "a bias of two layers": (R, "a bias of two layers"), "a shared storage": (N, "storage shared"),
    "a forward hook": (N, "a hook"), "spectral norm": (N, "spectral norm"), "weight norm": (N, "weight norm"),
    "weight norm by a hook": (N, "weight norm by a hook"), "a frozen layer": (R, "a frozen layer"), "LeNet, log_softmax": (R, "LeNet"),
    "residual blocks, inner and stream": (R, "an inner and a stream law"), "a stream from data": (R, "a stream that starts at the data"),
    "Conv1d, PReLU": (R, "one dimension"), "Conv3d": (R, "three dimensions"), "transposed, grouped": (R, "transposed and grouped"),
    "grouped, linear": (R, "grouped, linear"), "depthwise": (R, "depthwise"), "clamp, relu_, constants": (R, "constants and clamp"),
    "permute and flatten": (R, "permuted and flattened"), "embeddings": (R, "an embedding"), "max_norm": (N, "max_norm"),
    "scale_grad_by_freq": (N, "words counted"), "alpha dropout": (N, "alpha dropout"), "batch norm": (R, "batch norm"),
    "views that mix axes": (R, "a view that mixes units"), "weights read elsewhere": (R, "a weight read elsewhere"),
    "adapters": (R, "an adapter"), "experts": (R, "weights one matrix a choice"),
    "queries and keys, grouped": (A, "grouped queries"), "groups by PyTorch": (A, "groups left to PyTorch"),
    "values and outputs behind a gate": (A, "a gate on the heads"), "behind a norm": (A, "a norm on the heads"),
    "rotary positions": (A, "rotary positions"), "their multiplicities": (test_networks_positions.BY_HAND, "softmax"),
    "norms of queries and keys": (A, "norms of queries and keys"), "with rotary positions": (A, "such norms and rotary positions"),
    "without eps": (A, "such norms without eps"), "MultiheadAttention": (A, "MultiheadAttention"), "SwiGLU": (A, "SwiGLU"),
    "GELU": (A, "GELU"), "ReGLU": (A, "ReGLU"), "bilinear": (A, "bilinear"), "GLU": (A, "GLU"), "post-norm": (A, "an encoder layer"),
    "pre-norm gains": (A, "an encoder layer, norms first"), "stream behind RMS norms": (A, "a block without eps"),
    "tied weights": (A, "a block with its table tied"), "key bias": (test_networks_positions.SEEN, "rotary positions")}


@pytest.mark.parametrize("row", HELD)
def test_every_row_of_the_promise_has_its_case(row):
    table, case = HELD[row]
    assert case in table
