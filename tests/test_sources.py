"""The digest of what settles a result: code, wherever an experiment's imports lead, and nothing else."""

import ast
import shutil
import subprocess
from pathlib import Path

import pytest

from deeplinear import sources
from deeplinear.experiments import EXPERIMENTS

FILES = {
    "__init__.py": "from . import chain, losses, plots\n",
    "experiments/__init__.py": "from . import race\n",
    "experiments/race.py": "from .. import losses\n\n\ndef run():\n    from ..slow import wait\n    return losses.L + wait()\n",
    "losses.py": "from .chain import product\n\nL = product(2)\n",
    "chain.py": "def product(n):\n    return 3 * n\n",
    "slow.py": "import deeplinear.clock\n\n\ndef wait():\n    return deeplinear.clock.NOW\n",
    "clock.py": "NOW = 1\n",
    "plots.py": "WIDTH = 5\n",
}


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "deeplinear"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def digest(package):
    return sources.digest(package / "experiments" / "race.py", package)


def followed(package):
    return {path.relative_to(package).as_posix() for path in sources.followed(package / "experiments" / "race.py", package)}


def test_imports_are_followed_in_functions_too_and_plots_are_not(package):
    before = digest(package)
    assert followed(package) == {"experiments/race.py", "losses.py", "chain.py", "slow.py", "clock.py"}
    (package / "plots.py").write_text("WIDTH = 6\n")
    assert digest(package) == before
    for name in ("chain.py", "clock.py"):  # two imports away
        changed = FILES[name].replace("3", "4").replace("1", "2")
        (package / name).write_text(changed)
        assert digest(package) != before, name
        (package / name).write_text(FILES[name])
        assert digest(package) == before


def test_a_moved_function_changes_the_digest_and_its_new_file_is_followed(package):
    before = digest(package)
    (package / "products.py").write_text(FILES["chain.py"])
    (package / "chain.py").write_text("from .products import product\n")
    assert digest(package) != before and "products.py" in followed(package)
    moved = digest(package)
    (package / "products.py").write_text(FILES["chain.py"].replace("3", "4"))
    assert digest(package) != moved


def test_experiments_follow_their_numerics_and_not_what_carries_results():
    package = Path(sources.__file__).parent
    carriers = {"recorded.py", "storage.py", "provenance.py", "shards.py", "verification.py", "__main__.py", "__init__.py",
                "plots", "ledger.py", "checks.py", "sources.py", "annotations.py"}
    for name, module in EXPERIMENTS.items():
        names = {path.relative_to(package).parts[0] for path in sources.followed(module.__file__)}
        assert {"experiments", "data.py", "chain.py"} <= names and not names & carriers, name
    assert {"convnet.py", "reading.py"} <= {path.name for path in sources.followed(EXPERIMENTS["mnist-balance"].__file__)}


def test_the_names_of_types_do_not_count_and_compute_nothing(package):
    before = digest(package)
    (package / "annotations.py").write_text("Numbers = list\n")
    (package / "losses.py").write_text("from .annotations import Numbers\n" + FILES["losses.py"])
    imported = digest(package)
    (package / "annotations.py").write_text("Numbers = tuple\n")
    assert digest(package) == imported != before and "annotations.py" not in followed(package)
    own = ast.parse((Path(sources.__file__).parent / "annotations.py").read_text(encoding="utf-8"))
    for item in own.body[1:]:
        assert isinstance(item, (ast.Import, ast.ImportFrom, ast.Assign, ast.ClassDef))
        for member in item.body if isinstance(item, ast.ClassDef) else ():
            bodies = [member] if isinstance(member, ast.Expr) else member.body
            assert all(isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) for part in bodies)


def test_a_module_that_became_a_folder_is_followed(package):
    (package / "chain.py").unlink()
    (package / "chain").mkdir()
    (package / "chain" / "__init__.py").write_text("from .ends import product\n")
    (package / "chain" / "ends.py").write_text(FILES["chain.py"])
    assert {"chain/__init__.py", "chain/ends.py"} < followed(package)
    (package / "losses.py").write_text("from . import chain\n\nL = chain.product(2)\n")
    assert {"chain/__init__.py", "chain/ends.py"} < followed(package)


def test_a_name_of_the_package_itself_brings_in_the_package(package):
    (package / "slow.py").write_text("import deeplinear as dl\n\n\ndef wait():\n    return dl.chain.product(1)\n")
    assert {"__init__.py", "plots.py"} < followed(package)


@pytest.mark.parametrize("line", ["from . import nothing", "from .nothing import x", "import deeplinear.nothing"])
def test_an_import_that_leads_nowhere_is_named(package, line):
    (package / "chain.py").write_text(f"{line}\n")
    if line == "from . import nothing":  # it may be a name that __init__.py makes
        assert "__init__.py" in followed(package)
        return
    with pytest.raises(ValueError, match="chain.py imports nothing, which is not in"):
        digest(package)


CODE = '''"""What this is."""
import math  # for pi


class Ring:
    """A ring; ünïcödé."""

    def area(self, r=2):
        # from the book
        text = """kept  

# not a comment
"""
        label = f"{r!r:>{4}} # {'a'}"  # ü
        return math.pi * r**2, text, label  # and so on


class Wrong(ValueError): """Said once."""
'''  # noqa: W291


@pytest.mark.parametrize("old, new", [
    ("What this is.", "Another word,\n\nin three lines.  "), ("# from the book", "# from another\n\n        # book"),
    ("        # from the book\n", ""), ("  # for pi", ""), ('    """A ring; ünïcödé."""\n\n', ""), ("  # ü", " \t"),
    ("\n\n\nclass Ring", "\n\nclass Ring"), ("Said once.", "Said\nagain."), ("and so on\n", "and so on\r\n"),
    ("import math", '"a lone string"\nimport math')])
def test_comments_docstrings_and_blank_lines_do_not_count(old, new):
    assert old in CODE
    assert sources.code(CODE.replace(old, new)) == sources.code(CODE)


@pytest.mark.parametrize("old, new", [
    ("r**2", "r**3"), ("kept  ", "kept"), ("kept  \n\n", "kept  \n"), ("# not a comment", "# no comment"), ("# {", "; {"),
    ("text = ", "other = "), ("        return", "        if r:\n            return"), ("r=2", "r=3")])
def test_code_and_what_is_inside_strings_counts(old, new):
    assert old in CODE
    assert sources.code(CODE.replace(old, new)) != sources.code(CODE)


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_digest_is_the_same_on_every_python(version, tmp_path):
    """Of every experiment, of every file of the package, and of the strings that 3.12 began to take apart."""
    found = [shutil.which(f"python{version}"), *sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))]
    python = next((str(path) for path in found if path and works(path, version)), None)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    odd = tmp_path / "odd.py"
    odd.write_text(CODE + 'a = f"""{\n  1 +  \n\n  2}  \n # no comment {{ }} {3}  \n"""  # ü\nb = (1,  # one\n\n     2)\\\n  + ()\n'
                   'c = rb"#" ; """ü\nü""" ; d = 1  # end', encoding="utf-8")
    files = [odd, *sources.PACKAGE.rglob("*.py")]
    modules = [module.__file__ for module in EXPERIMENTS.values()]
    script = ("import runpy, sys\n"
              f"here = runpy.run_path({sources.__file__!r})\n"
              f"for name in {modules!r}: print(here['digest'](name))\n"
              f"for name in {list(map(str, files))!r}: print(repr(here['code'](here['_read'](here['Path'](name)))))\n"
              "assert 'torch' not in sys.modules\n")
    done = subprocess.run([python, "-I", "-X", "utf8", "-c", script], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [*map(sources.digest, modules),
                                        *(repr(sources.code(path.read_text(encoding="utf-8"))) for path in files)]


def works(python, version):
    done = subprocess.run([python, "-I", "-c", "import sys; print(sys.version)"], capture_output=True, text=True)
    return done.returncode == 0 and done.stdout.startswith(version)
