"""The one-line statements of claims.yml, written for a keyboard (``eta^2 |G|^2 <= 1``), with their mathematics set."""

import html
import re

from maths import mathml

GREEK = ("alpha|beta|gamma|delta|eps|epsilon|eta|theta|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|phi|varphi|chi|psi|omega|Gamma|Sigma|Phi"
         "|Omega")
COMMANDS = {"eps": r"\epsilon", "grad": r"\nabla", "lp": r"\ell_p", "phi": r"\phi"}
PRODUCTS = "Xw|AA|BB|Hw|cI|ab"  # of letters, without a space
SCRIPT = r"(?:[_^]\{[^}]*\}|\^-?\((?:[^()]|\([^()]*\))*\)|_[A-Za-z0-9](?:[+-]1)?(?!\w)|\^-?[A-Za-z0-9]+|'+)"
MATHS = re.compile(rf"""
    (?P<root>sqrt\((?P<inside>[^()]*)\))
  | (?P<power>\b1e-?\d+)
  | (?P<sign><=|>=|->|(?<=\d[ ])x(?=[ ]\d))
  | (?P<word>U-Net|mnist-5k|[A-Za-z]+(?:-[A-Za-z]+)*'[a-z]+)                     # a possessive is no derivative
  | (?P<name>\b(?:{GREEK}|grad|lp|{PRODUCTS})(?![A-Za-z])|(?<![A-Za-z])[A-Za-z](?![A-Za-z]{{2}}|[a-z])\d*|[)|]|\b\d+)(?P<scripts>{SCRIPT}*)
""", re.X)
SIGNS = {"<=": "≤", ">=": "≥", "->": "→", "x": "×"}
ARTICLE = re.compile(r"\s+(?:[A-Za-z]{2}|\d+ (?:by|x) \d)")  # what follows a, A, I that is no letter of a formula


def tex_of_name(name):
    if name in COMMANDS:
        return COMMANDS[name]
    if re.fullmatch(GREEK, name):
        return "\\" + name
    if found := re.fullmatch(r"([A-Za-z])(\d+)", name):
        return (r"\ell" if found[1] == "l" else found[1]) + f"_{found[2]}"
    return r"\vert" if name == "|" else name


def tex_of_scripts(base, scripts):
    text = ""
    for script in re.findall(SCRIPT, scripts):
        if script[0] == "'":
            text += r"^{\top}" if base[0] == "W" else script
            continue
        kind, inner = script[0], script[1:]
        if found := re.fullmatch(r"\{(.*)\}|\((.*)\)", inner):
            inner = found[1] if found[1] is not None else found[2]
        inner = re.sub(rf"\b({GREEK})\b", lambda greek: tex_of_name(greek[1]) + " ", inner)
        text += f"{kind}{{{chr(92) + 'top' if inner == 'T' else inner}}}"
    return text


def typeset(statement):
    """The statement as HTML, its letters and powers as formulas."""
    def replacement(found):
        if found["root"]:
            return mathml(rf"\sqrt{{{found['inside']}}}", False, {})
        if found["word"]:
            return html.escape(found["word"])
        if found["power"]:
            return mathml(f"10^{{{found['power'][2:]}}}", False, {})
        if found["sign"]:
            return SIGNS[found["sign"]]
        name, scripts = found["name"], found["scripts"]
        if not scripts and (not name[0].isalpha() or name in "aAI" and ARTICLE.match(statement, found.end())
                            and statement[found.start() - 1] != "/"):
            return html.escape(found[0])
        if not name[0].isalpha() and "^" not in scripts:
            return html.escape(found[0])
        return mathml(tex_of_name(name) + tex_of_scripts(name, scripts), False, {})
    statement = re.sub(r"<(\w+, [^<>]+)>", r"⟨\1⟩", statement)
    parts, end = [], 0
    for found in MATHS.finditer(statement):
        parts += [html.escape(statement[end:found.start()]), replacement(found)]
        end = found.end()
    text = "".join(parts) + html.escape(statement[end:])
    text = re.sub(r"(</math>|[\d)|⟩]) - (?=<math>|[\d(|⟨])", r"\1 − ", text)
    text = re.sub(r"(?<=</math>)-(?=\d|<math>)|(?<=[(; ])-(?=\d)", "−", text)
    return re.sub(r" - (?=\w)", " – ", text)
