"""The small GPT: its text, its parts against their definitions and PyTorch's own, its trainer, and what the laws read of it."""

import copy
import itertools

import deeplinear as dl
import pytest
import torch
from deeplinear import transformer
from torch import nn
from torch.nn import functional as F

TOKENS = transformer.encode(transformer.text(30))
KINDS = {"plain": {}, "no bias": {"bias": False}, "modern": {"bias": False, "rope": True, "groups": 2, "swiglu": True},
         "norms": {"qk_norm": 1e-6, "rope": True}}
SMALL = {"width": 16, "blocks": 1, "length": 12}


def test_the_text_counts_in_words():
    words = transformer.text()
    assert words.startswith("zero, one, two, three") and words.endswith("nine hundred and ninety-nine.")
    assert transformer.number(110) == "one hundred and ten" and transformer.number(342) == "three hundred and forty-two"
    assert words.count(",") == 999 and len(set(words[:-1].split(", "))) == 1000 and 20_000 < len(words) < 100_000
    for wrong in (-1, 1000):
        with pytest.raises(ValueError, match=f"n is {wrong}; expected"):
            transformer.number(wrong)


def test_characters_are_places_in_the_alphabet():
    assert transformer.encode("abca").tolist() == [0, 1, 2, 0] == transformer.encode("abca", "abcd").tolist()
    with pytest.raises(ValueError, match="'d'"):
        transformer.encode("abcd", "abc")


def test_rotations_turn_scores_by_the_difference_of_places():
    q, k = dl.normal(2, 6, generator=dl.seeded(0))
    scores = transformer.rotate(q.expand(9, 6)) @ transformer.rotate(k.expand(9, 6)).mT
    for s, t in itertools.product(range(8), repeat=2):
        assert (scores[s, t] - scores[s + 1, t + 1]).abs() < 1e-13
    assert (scores[0] - scores[0, 0]).abs()[1:].min() > 1e-6
    assert (transformer.rotate(q.expand(9, 6)).norm(dim=-1) - q.norm()).abs().max() < 1e-14


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_attention_is_pytorchs(groups):
    layer = transformer.Attention(16, 4, groups, rope=True).double()
    x = dl.normal(3, 7, 16, generator=dl.seeded(1))
    q, k, v = (part(x).unflatten(-1, (-1, 4)).transpose(1, 2) for part in (layer.q, layer.k, layer.v))
    y = F.scaled_dot_product_attention(transformer.rotate(q), transformer.rotate(k), v, is_causal=True, enable_gqa=True)
    assert (layer(x) - layer.o(y.transpose(1, 2).flatten(2))).abs().max() < 1e-14


@pytest.mark.parametrize("kind", KINDS)
def test_no_output_sees_what_comes_later_and_the_start_is_the_generators(kind):
    nets = [transformer.build(30, dl.seeded(2), **SMALL, **KINDS[kind]) for _ in range(2)]
    tokens = TOKENS[:12][None]
    other = tokens.clone()
    other[0, 7:] = 0
    assert torch.equal(nets[0](tokens), nets[1](tokens)) and nets[0](tokens).dtype == torch.float64
    assert (nets[0](tokens)[:, :7] - nets[0](other)[:, :7]).abs().max() < 1e-14
    assert (nets[0](tokens)[:, 7:] - nets[0](other)[:, 7:]).abs().max() > 1e-3


def test_widths_that_do_not_divide_are_named():
    for width, heads, groups, rope in ((10, 4, 4, False), (12, 4, 3, False), (12, 4, 4, True)):
        with pytest.raises(ValueError, match=f"width is {width}, heads {heads}, groups {groups}"):
            transformer.Attention(width, heads, groups, rope=rope)
    with pytest.raises(ValueError, match="length is 40"):
        transformer.windows(TOKENS[:30], 40, 2, dl.seeded(0))


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_a_deepened_copy_too(kind):
    net = transformer.build(int(TOKENS.max()) + 1, dl.seeded(3), **SMALL, **KINDS[kind])
    deep = dl.deepen(net, start="balanced")
    assert (deep(TOKENS[None, :12]) - net(TOKENS[None, :12])).abs().max() < 1e-12
    for one in (net, deep):
        losses = transformer.train(one, torch.optim.Adam(one.parameters(), 0.01), TOKENS, 60, dl.seeded(4), length=12)
        assert losses.shape == (60,) and losses[0] > 2.5 and losses[-10:].mean() < 1.6


def test_a_run_is_the_steps_by_hand():
    net = transformer.build(30, dl.seeded(5), **SMALL)
    hand = copy.deepcopy(net)
    transformer.train(net, torch.optim.SGD(net.parameters(), 0.1), TOKENS, 3, dl.seeded(6), length=12, batch=4)
    generator = dl.seeded(6)
    for _ in range(3):
        hand.zero_grad()
        pieces = transformer.windows(TOKENS, 13, 4, generator)
        logits = hand(pieces[:, :-1]).log_softmax(-1)
        (-logits.gather(-1, pieces[:, 1:, None]).mean()).backward()
        with torch.no_grad():
            for parameter in hand.parameters():
                parameter.sub_(0.1 * parameter.grad)
    assert all((a - b).abs().max() < 1e-14 for a, b in zip(net.parameters(), hand.parameters()))


def test_the_laws_of_its_parts_are_read():
    tokens = TOKENS[:24].reshape(2, 12)
    laws = dl.laws(transformer.build(30, dl.seeded(7), **SMALL), tokens)
    assert "blocks.0.attend.k.bias" in map(str, laws) and any(law.shape == (4, 4, 4) for law in laws)
    modern = [str(law) for law in dl.laws(transformer.build(30, dl.seeded(7), **SMALL, **KINDS["modern"]), tokens)]
    assert "|blocks.0.feed.down.weight|^2 - |blocks.0.feed.up.weight|^2" in modern
    assert "|blocks.0.attend.q.weight|^2 - |blocks.0.attend.k.weight|^2" in modern
    assert isinstance(transformer.Feed(4, 6), nn.Module)
