"""Faults of contrast are found wherever they stand, though only one text of each look is asked for its own; other faults too."""

import pytest

from faults import faults

GREY = "color: #999"  # 2.8 to 1 on white, 6.6 on what is dark
HIDDEN = "position: absolute; width: 1px; height: 1px; overflow: hidden; clip: rect(0, 0, 0, 0)"
DARK = "background: #111; color: #999"
LARGE = "color: #888; font-size: 30px"  # 3.5 to 1, enough for large letters


def paragraphs(middle, other="<p>Some words.</p>"):
    """Nine in a row; what is to be found is neither the first, the last nor the one in the middle."""
    return f"{other * 3}{middle}{other * 5}"


@pytest.fixture(scope="module")
def page(chromium):
    page = chromium.new_page()
    yield page
    page.close()


def found(page, body, style="", inside=None, rules=("color-contrast",)):
    page.set_content(f'<!DOCTYPE html><html lang="en"><title>T</title><style>body {{ background: #fff; color: #111 }} {style}</style>'
                     f"<main><h1>Title</h1>{body}</main></html>")
    return faults(page, inside, rules and list(rules))


PAIRS = {  # what has no fault, and what is as good as the same with one; a style where both need it
    "its own colour": ("<p>Some words.</p>", f'<p style="{GREY}">Some words.</p>'),
    "a part of a paragraph": ("<p>Some <i>words</i>.</p>", f'<p>Some <i style="{GREY}">words</i>.</p>'),
    "what lies behind": ("<div><p>Some words.</p></div>", '<div style="background: #333"><p>Some words.</p></div>'),
    "what lies far behind": ("<div><div><p>A word.</p></div></div>", '<div style="background: #333"><div><p>A word.</p></div></div>'),
    "opacity": ("<div><p>Some words.</p></div>", '<div style="opacity: 0.3"><p>Some words.</p></div>'),
    "a small size": (f'<p style="{LARGE}">Words</p>', f'<p style="{LARGE}; font-size: 12px">Words</p>'),
    "a light weight": (f'<p style="{LARGE}; font: bold 20px serif">W w</p>', f'<p style="{LARGE}; font: 20px serif">W w</p>'),
    "words among signs": (f'<p style="{GREY}">...</p>', f'<p style="{GREY}">Some words.</p>'),
    "words among letters": (f'<p style="{GREY}">a</p>', f'<p style="{GREY}">Some words.</p>'),
    "what is shown": (f'<p style="{GREY}; display: none">A word.</p>', f'<p style="{GREY}">A word.</p>'),
    "what is shown in a fold": (f'<details><summary>S</summary><p style="{GREY}">A word.</p></details>',
                                f'<details open><summary>S</summary><p style="{GREY}">A word.</p></details>'),
    "what is not for the ear alone": (f'<p style="{HIDDEN}; {GREY}">A word.</p>', f'<p style="{GREY}">A word.</p>'),
    "what is not beside the page": (f'<p style="position: absolute; left: -999px; {GREY}">A word.</p>', f'<p style="{GREY}">A word.</p>'),
    "beyond the edge": (f'<div style="{DARK}; height: 30px; margin: 60px"><p style="margin: 0">W w</p></div>',
                        f'<div style="{DARK}; height: 30px; margin: 60px"><p style="position: relative; top: 45px">W w</p></div>'),
    "not disabled": (f'<p><button disabled style="{GREY}; background: #fff">A word</button></p>',
                     f'<p><button style="{GREY}; background: #fff">A word</button></p>'),
    "a placed text": ('<div style="position: relative"><p>Some words.</p><b style="background: #333; display: none"></b></div>',
                      '<div style="position: relative; height: 40px"><b style="background: #333; position: absolute; inset: 0"></b>'
                      '<p style="position: relative">Some words.</p></div>'),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_one_text_of_poor_contrast_is_found_among_many_good_ones(page, kind):
    good, bad = PAIRS[kind]
    [(rule, count, _)] = found(page, paragraphs(bad, good))
    assert (rule, count) == ("color-contrast", 1)


def test_a_rule_for_one_of_many_is_found(page):
    assert found(page, paragraphs("<p>Some words.</p>"), "p:nth-of-type(4) { color: #999 }")
    assert not found(page, paragraphs("<p>Some words.</p>"), "p:nth-of-type(24) { color: #999 }")


def test_what_covers_some_hides_no_other(page):
    """Of the nine, alike to the eye, the first, the last and the one in the middle are covered, so that nothing is known of them."""
    text = (f'<div style="position: relative"><p style="{GREY}">Some words.</p>'
            '<b style="position: absolute; {}; background: #fff"></b></div>')
    covered, bare = text.format("inset: 0"), text.format("inset: 0 0 0 99%")
    assert not found(page, paragraphs(covered, covered))
    assert [count for _, count, _ in found(page, paragraphs(bare, covered))] == [1]


def test_of_code_each_kind_of_token_is_looked_at(page):
    block = '<div class="highlight"><pre><span class="k">for</span> <span class="n">name</span></pre></div>'
    odd = block.replace('"n"', '"kt"')
    assert not found(page, paragraphs(odd, block), ".highlight .k { color: #333 }")
    assert found(page, paragraphs(odd, block), ".highlight .kt { color: #999 }")
    assert found(page, paragraphs(odd, block), ".highlight .k { color: #999 }")


def test_what_is_dark_is_asked_again(page):
    page.set_content("<!DOCTYPE html><style>body { background: #fff } p { color: #333 } .dark body { background: #111 }"
                     ".dark p { color: #ddd } .dark p:nth-of-type(4) { color: #333 }</style>" + paragraphs("<p>Some words.</p>"))
    assert faults(page, rules=["color-contrast"]) == []
    page.evaluate("document.documentElement.className = 'dark'")
    assert [(rule, count) for rule, count, _ in faults(page, rules=["color-contrast"])] == [("color-contrast", 1)]


def test_inside_an_element_all_is_looked_at_and_nothing_outside(page):
    body = paragraphs(f'<p style="{GREY}">Some words.</p>')
    assert not found(page, f'{body}<section id="preview"><p>Some words.</p></section>', inside="#preview")
    [(rule, count, html)] = found(page, f'<section id="preview">{body}<p><math><mi>x</mi></math></p></section>', inside="#preview")
    assert (rule, count) == ("color-contrast", 1) and "Some words" in html


def test_all_other_rules_are_asked(page):
    assert found(page, "<h2>Part</h2><p>Some words.</p>", rules=None) == []
    wrong = '<h4>Part</h4><img src="data:,"><p><a href="#a"></a></p><input><p id="b" role="nonsense">Some words.</p>'
    assert {rule for rule, *_ in found(page, wrong, rules=None)} >= {"heading-order", "image-alt", "link-name", "label", "aria-roles"}
    line = '<p>Some words and <a href="#a" style="color: #225; text-decoration: none">a link</a> among them.</p>'
    assert [rule for rule, *_ in found(page, line, rules=["link-in-text-block"])] == ["link-in-text-block"]
