# make book    build the site             make test     everything CI checks
# make lint    only what reads the code: ruff, mypy, zizmor; the first step of make test
# make lab     open JupyterLab            make refresh  run the notebooks and store their outputs
# make results record the experiments     make bench    measure speeds against peers
# make gpu     on a machine with a GPU: its tests, make bench, then make results, in SECONDS=600
# make prove   check the machine-checked proofs in formal/ with Coq, if it is there, and print what they assume
# make shake   which printed digits hang on the last bit, or on the processor? (half an hour)
# make pdf     print the book to _build/book.pdf with Chromium
# make slides  an hour and four weeks of slides from the book's own pieces     make sheets  problem sheets and answer keys as PDF
# make clean   remove what make made
# make resolve can every Python and system install the pins?   make constraints  write constraints.txt again
# make lowest  do the library's tests pass with the lowest versions that pyproject.toml allows?

.DELETE_ON_ERROR:
.PHONY: book test lint pdf slides sheets lab refresh results bench gpu prove shake clean resolve constraints lowest

RECENT := 'import sys, venv; sys.exit(sys.version_info < (3, 11))'
ifndef PYTHON
PYTHON := $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
  $$python -c $(RECENT) 2>/dev/null && echo $$python && break; done)
endif
BIN := .venv/bin
# Tests and experiments run one process a core; more threads would wait for each other.
export OMP_NUM_THREADS ?= 1
SOURCES := _config.yml _toc.yml $(wildcard tests/claims/test_*.py formal/*.v) $(shell find book lib -type f -not -path '*/.*' -not -name '*.pyc' -not -path '*.egg-info/*')

UNITS := $(patsubst %,tests/test_%.py,about asking asking_doubts asking_reading chain checks conservation convnet data descent exact factorisation field fingerprint flow \
  going_on homogeneous losses optimizers preconditioner products recorded shards sweep)

book: _build/html/.built
	@$(BIN)/python -c "from pathlib import Path; print('the book:', Path('_build/html/index.html').absolute().as_uri())"

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests --ignore=tests/test_site.py --ignore=tests/test_browser.py --ignore=tests/test_touch.py \
	  --ignore=tests/test_slides_browser.py
	$(BIN)/python -m pytest -n 2 --dist loadfile --nbval book
	$(MAKE) --no-print-directory book
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/test_site.py tests/test_browser.py tests/test_touch.py tests/test_slides_browser.py

lint: .venv/.ready
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/zizmor --offline --quiet .github/workflows

pdf: .venv/.ready
	$(BIN)/python tools/pdf.py

slides: _build/html/.built
	@$(BIN)/python -c "import sphinx_revealjs" 2>/dev/null || $(BIN)/python -m pip install -q -c constraints.txt sphinx-revealjs
	$(BIN)/python tools/slides.py

sheets: _build/html/.built
	$(BIN)/python tools/slides.py --sheets

# The extension shows theorems and proofs; the pictures that are stored show in notebooks that are trusted.
lab: .venv/.ready
	@$(BIN)/python -c "import jupyterlab, jupyterlab_myst" 2>/dev/null || \
	  $(BIN)/python -m pip install -q -c constraints.txt jupyterlab jupyterlab-myst
	@$(BIN)/jupyter trust book/*.ipynb >/dev/null
	$(BIN)/jupyter lab book/01-warm-up.ipynb

refresh: .venv/.ready
	$(BIN)/python tools/refresh.py

results: .venv/.ready
	@for name in $$($(BIN)/python -m deeplinear list | cut -d: -f1); do \
	  $(BIN)/python -m deeplinear run $$name --scale full --out book/results || exit 1; done

shake: .venv/.ready
	$(BIN)/python tools/shake.py

bench: .venv/.ready
	$(BIN)/python benchmarks/bench.py

# With the interpreter at hand, PYTHON, and no .venv: WHEELS is a folder with what it lacks, RESUME the OUT/gpu.tar of another machine.
gpu: SECONDS ?= 600
gpu:
	@$(or $(PYTHON),python3) tools/gpu.py --seconds $(SECONDS) $(if $(OUT),--out "$(OUT)") $(if $(WHEELS),--wheels "$(WHEELS)") \
	  $(if $(RESUME),--resume "$(RESUME)")

prove:
	@$(or $(PYTHON),python3) tools/prove.py

resolve: .venv/.uv
	$(BIN)/python tools/resolve.py

constraints: .venv/.uv
	$(BIN)/python tools/resolve.py --write

# Warnings of old releases about newer ones beside them are not ours.
lowest: .venv/.uv
	$(BIN)/python -m uv venv -q --clear .venv/lowest
	$(BIN)/python -m uv pip install -q --python .venv/lowest --resolution lowest-direct --only-binary :all: -r pyproject.toml \
	  --all-extras $$(grep -E '^(pytest|hypothesis|nbformat)==' requirements.txt)
	PYTHONPATH=lib .venv/lowest/bin/python -m pytest -o addopts= -o filterwarnings=default --confcutdir=tests $(UNITS)

clean:
	rm -rf .venv _build .mypy_cache .pytest_cache .ruff_cache .hypothesis lib/*.egg-info

# The environment: made again when what it is made from changes. One line says what went wrong.
.venv/.ready: requirements.txt constraints.txt pyproject.toml | $(BIN)/python
	@echo "setting up .venv, a few minutes: 0.3 GB to download, under 2 GB on disk; on Linux 3 GB and 5.5 GB, since pip takes"
	@echo "a CUDA build of PyTorch there, unless a CPU build was installed first (README.md says how)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.txt -c constraints.txt > .venv/setup.log 2>&1 || \
	  { echo "error: installing requirements.txt failed: $$(grep -i '^error' .venv/setup.log | head -n 1) (all of it: .venv/setup.log)"; exit 1; }
	@touch $@

.venv/.uv: | $(BIN)/python
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt uv
	@touch $@

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found; install one, or name one: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c $(RECENT) 2>/dev/null || \
	  { echo "error: $(PYTHON) is not a Python 3.11 or newer with venv ($$($(PYTHON) --version 2>&1 | head -n 1))"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "error: '$(PYTHON) -m venv .venv' failed"; exit 1; }

# From an empty folder whenever a source is newer: an incremental build would hide warnings.
_build/html/.built: .venv/.ready $(SOURCES)
	@rm -rf _build
	$(BIN)/jupyter-book build . -W -n --keep-going -q
	@touch $@
