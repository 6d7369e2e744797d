"""What axe finds wrong on a page, its slow rule of contrast asked once for each look of a text; no test, but what browser tests use.

Two texts look alike if what that rule reads of them agrees: size, weight, colour and shadow of the text, whether it has letters, what
its ancestors, their pseudo-elements and whatever else lies there paint, and whether an ancestor hides it, is disabled or has the text
beyond its edge. Of those that look alike the first, the one in the middle and the last are looked at; all of them, if something may
cover one of these three.
"""

from axe_playwright_python.base import AXE_SCRIPT

LOOKS = """() => {
    const known = new Map(), looks = new Map(), page = document.documentElement, boxes = new Map();
    const named = (text) => known.get(text) ?? known.set(text, known.size).get(text);
    const paints = (style) => style.backgroundColor !== 'rgba(0, 0, 0, 0)' || style.backgroundImage !== 'none';
    const box = (element) => boxes.get(element) ?? boxes.set(element, element.getBoundingClientRect()).get(element);
    const BEHIND = ['backgroundColor', 'backgroundImage', 'backgroundClip', 'opacity', 'mixBlendMode', 'filter', 'clip', 'clipPath',
        'textShadow'];
    const OWN = ['color', 'fontSize', 'fontWeight', 'textShadow', 'visibility', 'webkitTextStroke'];
    const PSEUDO = ['content', 'display', 'position', 'backgroundColor', 'backgroundImage', 'width', 'height'];
    const values = (style, names) => names.map((key) => style[key]).join('|');
    const within = (inner, outer) => inner.left >= outer.left - 1 && inner.right <= outer.right + 1
        && inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1;
    const PLAIN = 'rgba(0, 0, 0, 0)|none|border-box|1|normal|none|auto|none|none';

    /* What an element and its ancestors put behind a text: a number, those that paint, those that cut. */
    function behind(element) {
        if (!element) return { look: '', painted: [] };
        if (looks.has(element)) return looks.get(element);
        const above = behind(element.parentElement), style = getComputedStyle(element), parts = [];
        const own = values(style, BEHIND);
        if (own !== PLAIN) parts.push(own);
        for (const pseudo of ['::before', '::after']) {
            const added = getComputedStyle(element, pseudo);
            if (added.content !== 'none' && (paints(added) || added.position === 'absolute')) parts.push(pseudo + values(added, PSEUDO));
        }
        if (element.matches(':disabled, [aria-disabled], label, [inert]')) parts.push(element.outerHTML);
        const cuts = style.overflowX !== 'visible' || style.overflowY !== 'visible';
        const found = { look: parts.length ? named(above.look + '/' + parts.join('/')) : above.look,
            painted: paints(style) || cuts ? [...above.painted, element] : above.painted };
        looks.set(element, found);
        return found;
    }

    const all = [...document.body.querySelectorAll('*')], painters = [], texts = new Map();
    for (const element of all)
        if (element.checkVisibility() && (paints(getComputedStyle(element)) || element.matches('img, svg, video, canvas, iframe')))
            painters.push(element);
    for (const element of all) {
        delete element.dataset.look;
        const written = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data).join('').trim();
        const control = element.matches('input, select, textarea, button');
        if (!control && !written || !element.checkVisibility()) continue;
        const { look, painted } = behind(element), own = box(element);
        const over = painters.filter((other) => {
            const edge = box(other);
            return edge.left < own.right && edge.right > own.left && edge.top < own.bottom && edge.bottom > own.top
                && !other.contains(element) && !element.contains(other); });
        const key = [look, values(getComputedStyle(element), OWN), control && element.outerHTML, Math.min(written.length, 2),
            /[\\p{L}\\p{N}]/u.test(written), /[^\\u0000-\\u2fff]/u.test(written), own.width > 1 && own.height > 1,
            own.right > 0 && own.bottom > 0 && own.left < page.clientWidth, over.map((other) => behind(other).look),
            painted.map((other) => within(own, box(other)))].join('#');
        texts.set(key, [...texts.get(key) ?? [], element]);
    }
    for (const alike of texts.values())
        for (const place of [0, alike.length >> 1, alike.length - 1]) alike[place].dataset.look = '';
    window.alike = [...texts.values()]; }"""
PLAIN = """{ const seen = new Set();
    for (const code of document.querySelectorAll('.highlight pre')) {
        const kinds = [...code.querySelectorAll('span')].map(token => token.className);
        if (kinds.every(kind => seen.has(kind))) code.textContent = code.textContent;
        kinds.forEach(kind => seen.add(kind));
    } }"""
BARE = "inside => document.querySelectorAll(inside ? `math:not(${inside} math)` : 'math').forEach(formula => formula.replaceWith('x'))"
AXE = """async ([inside, rules]) => {
    axe.configure({rules: [{id: 'color-contrast', selector: inside ? '*' : '[data-look]'}]});
    const said = (found) => found.violations.map(fault => [fault.id, fault.nodes.length, fault.nodes[0].html.slice(0, 200)]);
    const ask = (rules, types) => axe.run(inside ?? document,
        {resultTypes: types, elementRef: true, ...(rules ? {runOnly: rules} : {})});
    const first = await ask(rules, ['violations', 'incomplete']);
    const covered = first.incomplete.filter(doubt => !inside && doubt.id === 'color-contrast').flatMap(doubt => doubt.nodes)
        .filter(node => /Overlap|Obscur|outside/.test(node.any[0].data?.messageKey)).map(node => node.element);
    const again = window.alike?.filter(texts => covered.some(text => texts.includes(text))).flat() ?? [];
    if (!covered.length) return said(first);
    for (const text of document.querySelectorAll('[data-look]')) delete text.dataset.look;
    for (const text of again) text.dataset.look = '';
    return [...said(first), ...said(await ask(['color-contrast'], ['violations']))]; }"""


def faults(page, inside=None, rules=None):
    """The faults that axe finds by all rules, or by these, on the page, or inside the element with this selector: (rule, how many
    places, the first); on the page formulas apart, which would take it a minute and have the colour of their text, and of blocks
    of code those with their colours in which a kind of token occurs that none before had."""
    page.evaluate(BARE, inside)
    page.evaluate(PLAIN)
    if inside is None:
        page.evaluate(LOOKS)
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    return page.evaluate(AXE, [inside, rules])
