"""Links both ways: from a claim to its check, its test and its machine-checked proof, from a statement to the functions that name it."""

import ast
import html
import re
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx import addnodes

from deeplinear import ledger
from statements import typeset

ROOT = Path(__file__).parents[2]
TESTS_PAGE = "book/tests"
FORMAL_PAGE = "book/formal"
PLAIN = re.compile(r'<span class="(?:o|mi|mf)">([^<]*)</span>')  # the page of tests is long: left in the colour of text
PREPRINT = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


def functions_of_statements():
    """The public names of the library by the label of each statement that their docstrings refer to."""
    found = {}
    package = ROOT / "lib" / "deeplinear"
    for path in sorted(package.rglob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        face = path.relative_to(package).with_suffix("").parts[0]  # a module of parts shows their names as its own
        for item in module.body:
            if isinstance(item, (ast.FunctionDef, ast.ClassDef)) and not item.name.startswith("_"):
                for label in re.findall(r":prf:ref:`([^`]+)`", ast.get_docstring(item) or ""):
                    found.setdefault(label, []).append(f"{face}.{item.name}")
    return found


def name_the_functions(app, doctree):
    """Under each statement, the functions that implement it, as links to the page of the library."""
    for box in doctree.findall(lambda node: isinstance(node, nodes.Element) and "realtype" in node):
        names = app.functions_of_statements.get(box["label"])
        if names:
            line = nodes.paragraph("", "In the library: ", classes=["in-library"])
            for i, name in enumerate(dict.fromkeys(names)):
                link = addnodes.pending_xref("", nodes.literal(name, name), refdomain="py", reftype="obj",
                                             reftarget=f"deeplinear.{name}", refexplicit=True, refdoc=app.env.docname)
                line += [nodes.Text(", "), link] if i else [link]
            box.append(line)


def name_the_checks(app, doctree):
    """The id of a check cell becomes an anchor of the page."""
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        for box in doctree.findall(nodes.container):
            if box.get("nb_element") == "cell_code" and cells[box["cell_index"]]["id"].startswith("check-"):
                box["ids"].append(cells[box["cell_index"]]["id"])


def write_the_tests(app, page, source):
    """The page of tests: each claim's test as it stands in tests/claims, with an anchor."""
    if page != TESTS_PAGE or app.builder.name != "html":
        return
    files = {name: f"../{path.relative_to(ROOT).as_posix()}" for path in sorted((ROOT / "tests" / "claims").glob("test_*.py"))
             for name in re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.M)}
    chapter = None
    for claim in ledger.read():
        if claim["chapter"] != chapter:
            chapter = claim["chapter"]
            source[0] += f"\n## Chapter {int(chapter[:2])}\n"
        test = "test_" + claim["id"].replace("-", "_")
        source[0] += (f'\n<p id="test-{claim["id"]}"><a href="{chapter}.html#{claim["id"]}">{claim["id"]}</a>: '
                      f'{html.escape(claim["statement"])}</p>\n\n'
                      f"```{{literalinclude}} {files[test]}\n:pyobject: {test}\n:language: python\n```\n")


def write_the_proofs(app, page, source):
    """The page of machine-checked proofs: each file of formal, over it the claims that it proves, with an anchor."""
    if page != FORMAL_PAGE or app.builder.name != "html":
        return
    for path in sorted((ROOT / "formal").glob("*.v")):
        source[0] += f"\n## {path.stem}\n\n"
        text = path.read_text(encoding="utf-8")
        for claim in ledger.read():
            if re.search(rf"^Theorem {re.escape(claim.get('formal', '-'))}(?![\w'])", text, re.M):
                name = html.escape(claim["formal"])
                source[0] += (f'<p id="formal-{name}"><code>{name}</code>: <a href="{claim["chapter"]}.html#{claim["id"]}">'
                              f'{claim["id"]}</a>: {html.escape(claim["statement"])}</p>\n\n')
        source[0] += f"```{{literalinclude}} ../formal/{path.name}\n:language: none\n```\n"


def link_the_preprints(app, doctree, page):
    """In the list of references the number of a preprint is a link to it."""
    for entry in doctree.findall(nodes.citation):
        for text in [text for text in entry.findall(nodes.Text) if PREPRINT.search(text)]:
            parts = PREPRINT.split(text.astext())
            links = [nodes.reference("", f"arXiv:{number}", refuri=f"https://arxiv.org/abs/{number}", internal=False)
                     for number in parts[1::2]]
            texts = [nodes.Text(part) for part in parts[::2]]
            text.parent.replace(text, [node for pair in zip(texts, [*links, nodes.Text("")]) for node in pair])


def sources(app):
    """Each key of the references as a reader knows it, linked to its place in the list."""
    found = {}
    for citation in app.env.get_domain("cite").citations:
        names = [" ".join(person.last_names) for person in citation.entry.persons.get("author", [])]
        who = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
        found[citation.key] = f'<a href="references.html#{citation.citation_id}">{who} {citation.entry.fields["year"]}</a>'
    return found


def number_the_claims(app, pages):
    """In the tables of claims and of tests a claim is called by the number of its statement or section, its label stays as a hint;
    its statement has its mathematics set, and its source a link."""
    claims, names, known = ledger.read(), {}, sources(app)
    for claim in claims:
        page = pages[f"book/{claim['chapter']}"]
        at = page.find(f' id="{claim["id"]}"')
        found = re.search(r'<span class="(caption|section)-number">([^<]+?)[. ]*</span>', page[at:at + 3000])
        names[claim["id"]] = ("Section " if found[1] == "section" else "") + found[2]
    for name in ("book/claims", TESTS_PAGE, FORMAL_PAGE):
        text = pages[name]
        for label, title in names.items():
            text = re.sub(rf'(<a href="[^"]+#{label}")>{label}</a>', rf'\1 title="{label}">{title}</a>', text)
        for sentence in (sentence for claim in claims for sentence in (claim["statement"], claim.get("scope")) if sentence):
            for before, after in (("<td>", ""), ("<small>", "</small>"), ("</a>: ", "</p>")):
                text = text.replace(before + html.escape(sentence) + after, before + typeset(sentence) + after)
        for key, link in known.items():
            text = text.replace(f"<td>{key}</td>", f"<td>{link}</td>")
        pages[name] = PLAIN.sub(r"\1", text) if name == TESTS_PAGE else text


def setup(app):
    app.functions_of_statements = functions_of_statements()
    app.connect("doctree-read", name_the_functions)
    app.connect("doctree-read", name_the_checks)
    app.connect("doctree-resolved", link_the_preprints)
    app.connect("source-read", write_the_tests)
    app.connect("source-read", write_the_proofs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
