"""A wheel carries what the library reads from book/: bundled data, recorded results, the ledger; and what was measured."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithBook(build_py):
    def run(self):
        super().run()
        if self.editable_mode:
            return  # a checkout has the folder itself
        target = Path(self.build_lib, "deeplinear", "_book")
        for name in ("data", "results"):
            shutil.copytree(Path("book", name), target / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
        shutil.copytree("benchmarks/results", target / "benchmarks", dirs_exist_ok=True)
        shutil.copy("book/claims.yml", target)


setup(cmdclass={"build_py": WithBook})
