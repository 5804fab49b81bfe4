# Everything runs from .venv, which scripts/setup makes on first use and renews when its inputs change.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format bench docs-figures clean
SHELL := /bin/sh

BIN := .venv/bin
STAMP := .venv/.setup-stamp
SHOTS ?= demo-screenshots
PYTEST_ARGS ?=
# Processes that share the tests, a file at a time; each has a screen, folders and cores of its own (tests/conftest.py).
WORKERS ?= 2
# A screen large enough for the viewer with both docks; 24 bits, as OpenGL wants them.
XVFB := xvfb-run -a -s "-screen 0 1600x1000x24"

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with everything needed

$(STAMP): pyproject.toml constraints.txt scripts/setup
	@sh scripts/setup
	@touch $@

demo: $(STAMP) ## Open napari on the sample CT; without a screen, leave screenshots in demo-screenshots/
	@if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ]; then \
		exec $(BIN)/medtransformer demo; \
	else \
		echo "no screen: screenshots go to $(SHOTS)/"; \
		exec $(XVFB) $(BIN)/medtransformer demo --headless --screenshots $(SHOTS); \
	fi

lint: $(STAMP) ## Format, lint, types, layers, manifest
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/npe2 validate --imports napari-medtransformer

test: lint ## Lint, then every test, on virtual screens
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

format: $(STAMP) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Compare attention with other implementations; writes docs/benchmarks.md
	$(BIN)/python benchmarks/attention.py

docs-figures: $(STAMP) ## Make the pictures of attention and of the window in docs/images
	$(BIN)/python scripts/docs_figures.py
	$(XVFB) $(BIN)/python scripts/window_pictures.py

clean: ## Remove caches and build outputs, keep .venv
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache $(SHOTS)
