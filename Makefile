# `make demo` and `make test` each set up everything they need on a fresh machine; repeated, they start at once.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# A file's tests stay in one process, which shares what they train. `pytest` by itself runs all in one. Files keep their
# order, integration tests first: by the number of their tests the longest would come last, and one process would wait.
PROCESSES ?= auto

VLLM_VENV ?= .venv-vllm
VLLM_INSTALLED := $(VLLM_VENV)/.installed

.PHONY: demo test test-vllm lint

demo: $(INSTALLED)
	$(BIN)/prism run recipes/tiny/demo.toml

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --maxprocesses 4 --dist loadfile \
		--no-loadscope-reorder $(PYTEST_ARGS)

# vLLM brings hundreds of packages, so it has an environment of its own: vLLM for CPUs, about 4 GB.
test-vllm: $(VLLM_INSTALLED)
	$(VLLM_VENV)/bin/python -m pytest -m vllm -p no:logging tests/real_vllm $(PYTEST_ARGS)

$(VLLM_INSTALLED): tests/real_vllm/environment pyproject.toml
	tests/real_vllm/environment $(VLLM_VENV) $(PYTHON)
	touch $@

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

# torch goes first and by itself: whatever else is resolved afterwards then keeps the build it finds,
# instead of reaching for a newer one with several gigabytes of CUDA libraries.
$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --progress-bar off "torch>=2.11,<2.14"
	$(BIN)/python -m pip install --progress-bar off --editable ".[dev]"
	touch $@
