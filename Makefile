# Two commands do everything: `make demo` and `make test`. Both make their own environment in .venv first.
# Where the default package index has only CUDA builds of torch, name another: make demo INDEX=https://...

PYTHON ?= $(shell command -v python3.11 || command -v python3)
INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DOCS := $(VENV)/.installed-docs
THREADS ?= 1

.PHONY: demo test test-slow test-nightly gpu-bundle docs install clean

demo: $(INSTALLED)
	$(BIN)/dalr demo

test: $(INSTALLED)
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -n 2 --dist loadscope

test-slow: $(INSTALLED)
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -n 2 --dist loadscope -m slow

test-nightly: $(INSTALLED)
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -n 2 -m nightly

# Everything that a GPU machine without a network needs: copy the tree with build/gpu-bundle there, and run
# benchmarks/gpu.sh. DALR_SHARED is the folder of real data.
gpu-bundle: $(INSTALLED)
	$(BIN)/python benchmarks/gpu_bundle.py $(if $(INDEX),--index $(INDEX))

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
