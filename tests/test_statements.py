"""The one-line statements of the claims: letters and powers become formulas, words stay words."""

import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from statements import typeset  # noqa: E402  # beside the build

CLAIMS = yaml.safe_load((ROOT / "book" / "claims.yml").read_text(encoding="utf-8"))


def tex(statement):
    """The set statement with each formula as its TeX between marks."""
    return re.sub(r'<math>.*?<annotation encoding="application/x-tex">(.*?)</annotation></semantics></math>', r"[\1]", typeset(statement))


@pytest.mark.parametrize(("written", "meant"), [
    ("W_{j+1}^T G_{j+1} = G_j W_j^T", r"[W_{j+1}^{\top}] [G_{j+1}] = [G_{j}] [W_{j}^{\top}]"),
    ("at most 2 N^2 times (2 |W_e|)^(2/N)", r"at most 2 [N^{2}] times (2 |[W_{e}]|[)^{2/N}]"),
    ("(W_j W_j')^(1/2), L'' > 0", r"([W_{j}] [W_{j}^{\top}][)^{1/2}], [L''] &gt; 0"),
    ("eps^(1/(1-rho)) and 1e-6", r"[\epsilon^{1/(1-\rho )}] and [10^{-6}]"),
    ("k, d >= 2: grad L(0), 1/sqrt(N), lp", r"[k], [d] ≥ 2: [\nabla] [L](0), 1/[\sqrt{N}], [\ell_p]"),
    ("<M, AA^T> - <N, BB^T>", r"⟨[M], [AA^{\top}]⟩ − ⟨[N], [BB^{\top}]⟩"),
    ("a 1 x 1 behind, ratio a; Euler's 0.1/a in", "a 1 × 1 behind, ratio [a]; Euler&#x27;s 0.1/[a] in"),
    ("A gated U-Net keeps down - up, r-th", "A gated U-Net keeps down – up, [r]-th"),
])
def test_mathematics_is_told_from_words(written, meant):
    assert tex(written) == meant


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim["id"])
def test_nothing_is_lost_and_no_sign_of_the_keyboard_is_left(claim):
    for statement in (claim["statement"], claim.get("scope", "")):
        words = re.sub(r"\[.*?\]", " ", tex(statement))
        assert not re.search(r"\\|[\^_{}]|&lt;=|&gt;=|-&gt;|\b(?:eta|omega|lambda|grad|sqrt)\b", words), words
        for word in set(re.findall(r"(?<![\w'])[A-Za-z]{4,}(?![\w'^_(])", statement)) - {"grad"}:
            assert word in words or f"\\{word}" in tex(statement), word
