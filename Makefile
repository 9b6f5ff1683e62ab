# The two commands of the README, and those of developers. Each sets up what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Sets of the ablation whose stock layers are among the results.
ABLATED := Cora CiteSeer PubMed chameleon_filtered

.DEFAULT_GOAL := help
.PHONY: help compare evidence test lint bench gpu readme docs wheel clean

help:
	@echo "make compare   install into $(VENV), train stock GAT and kernel GATs, print and draw the comparison"
	@echo "make evidence  train what is missing below evidence/: days on two cores, goes on where it was stopped"
	@echo "make test      install into $(VENV) and run the tests (ARGS=\"-m quick\": a part of them, in a minute)"
	@echo "make lint      formatting, linting and types"
	@echo "make bench     time of our layers against PyG's, as JSON lines and a table"
	@echo "make gpu       on a CUDA device, in under eight minutes: are its kernels right, and how fast are they"
	@echo "make docs      build the documentation into docs/_build/html"
	@echo "make wheel     build dist/*.whl, install it into a fresh environment and try it there"
	@echo "make readme    draw the figures of results/, evidence/ and ablation/, and write the tables of their pages and"
	@echo "               of README.md again"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "kgat needs Python 3.11 or newer (got " + sys.version.split()[0] + "); name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.kgat: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[experiments]'
	@touch $@

$(VENV)/.kgat-dev: $(VENV)/.kgat
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev,ogb]'
	@touch $@

$(VENV)/.kgat-docs: $(VENV)/.kgat
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[docs]'
	@touch $@

$(VENV)/.kgat-tuning: $(VENV)/.kgat
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[tuning]'
	@touch $@

compare: $(VENV)/.kgat
	$(BIN)/kgat compare

evidence: $(VENV)/.kgat-tuning
	KGAT="$(abspath $(BIN))/kgat" evidence/run

# One thread per test process: the tensors are tiny, and two processes share two cores well. Each takes neighbours,
# which use the same compiled loops and fixtures; dealt out in turns, both would make them, or wait for each other.
test: $(VENV)/.kgat-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal $(ARGS)

lint: $(VENV)/.kgat-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.kgat
	$(BIN)/kgat bench layers

gpu: $(VENV)/.kgat-dev
	$(BIN)/python benchmarks/on_gpu.py $(ARGS)

readme: $(VENV)/.kgat
	for file in results/*/results.jsonl ablation/*/results.jsonl; do $(BIN)/kgat plot $${file%/*}; done
	PYTHONPATH=docs $(BIN)/python -m _generate.catalogue
	$(BIN)/kgat table results --readme README.md
	$(BIN)/kgat table results --readme results/README.md
	$(BIN)/kgat table evidence/published results/Cora results/CiteSeer results/PubMed --published --readme evidence/README.md
	$(BIN)/kgat table evidence/families evidence/floors evidence/graphs.jsonl --verdict --readme evidence/README.md --figure evidence/verdict.png
	$(BIN)/kgat table evidence/sweep --sweep --readme evidence/README.md --figure evidence/sweep.png
	$(BIN)/kgat table evidence/questions --questions --readme evidence/README.md
	$(BIN)/kgat table evidence/families evidence/floors evidence/graphs.jsonl --settings --readme evidence/settings.md
	$(BIN)/kgat table evidence/mixtures --verdict --family 'additive|rbf,constant*additive+constant*rbf' --against gat,rbf \
		--readme evidence/mixtures/README.md
	$(BIN)/kgat table $(ABLATED:%=results/%) ablation --readme ablation/README.md

docs: $(VENV)/.kgat-docs
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

wheel: $(BIN)/python
	rm -rf build dist
	$(BIN)/pip wheel --disable-pip-version-check -q --no-deps -w dist .
	.ci/try_wheel $(BIN)/python dist/kgat-*.whl

clean:
	rm -rf $(VENV) runs build dist *.egg-info
