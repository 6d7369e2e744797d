"""The chapters as they are launched elsewhere: each with a first cell that installs the library, of the version that wrote them.

    python tools/launch.py FOLDER https://github.com/OWNER/NAME v1.0.0

The publish workflow puts FOLDER on the branch ``launch``, which the pages link to; the notebooks of the book stay as they are.
"""

import re
import sys
from pathlib import Path

import nbformat

BOOK = Path(__file__).parents[1] / "book"


def launch(notebook, repository, version):
    """The notebook with the cell that installs before its others."""
    install = nbformat.v4.new_code_cell(f'%pip install -q "deeplinear @ git+{repository}@{version}"', id="install")
    copy = nbformat.from_dict(notebook)
    copy.cells = [install, *copy.cells]
    return copy


def main(folder, repository, version):
    if not re.fullmatch(r"https://[\w./-]+", repository) or not re.fullmatch(r"[\w.-]+", version):
        sys.exit(f"expected the address of a repository and a version, got {repository} {version}")
    target = Path(folder) / "book"
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(BOOK.glob("*.ipynb")):
        nbformat.write(launch(nbformat.read(path, as_version=4), repository, version), target / path.name)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python tools/launch.py FOLDER REPOSITORY VERSION")
    main(*sys.argv[1:])
