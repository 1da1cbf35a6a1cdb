# Two commands do everything: `make demo` and `make test`. Both make their own environment in .venv first.
# Where the default package index has only CUDA builds of torch, name another: make demo INDEX=https://...

PYTHON ?= $(shell command -v python3.11 || command -v python3)
INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DOCS := $(VENV)/.installed-docs
THREADS ?= 1

.PHONY: demo test test-slow test-nightly bench-gpu docs install clean

demo: $(INSTALLED)
	$(BIN)/dalr demo

test: $(INSTALLED)
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -n 2 --dist loadscope

test-slow: $(INSTALLED)
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -n 2 --dist loadscope -m slow

test-nightly: $(INSTALLED)
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -n 2 -m nightly

# On a machine with a GPU: the CPU's tests there, the step beside the public one, and the whole schedule.
bench-gpu: $(INSTALLED)
	$(BIN)/python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "torch finds no GPU")'
	$(BIN)/python -m pytest tests/models tests/losses tests/training
	$(BIN)/python benchmarks/training.py --generated --models bert-base --batch 128 --steps 20 --profile \
		--out runs/benchmarks/training-gpu.json
	$(BIN)/python benchmarks/training.py --schedule --models bert-base --batch 128 \
		--out runs/benchmarks/schedule-gpu.json

# The documentation, into build/site; nothing is fetched while it is built.
docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(DOCS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet $(if $(INDEX),--index-url $(INDEX)) \
		--constraint constraints.txt --editable '.[docs]'
	touch $@

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' || \
		{ echo "Python 3.11.4 or newer is needed, found $$($(PYTHON) --version); set PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(if $(INDEX),--index-url $(INDEX)) \
		--constraint constraints.txt --editable '.[test,report,minilm,formats]'
	touch $@

clean:
	rm -rf $(VENV) runs build .mypy_cache .ruff_cache .pytest_cache
