PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# glibc returns large blocks to the system and faults them in again for every feature map.
FAST_MALLOC := MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592 \
               MALLOC_TOP_PAD_=268435456

.PHONY: docs quickstart demo-model gpu-check test lint types pytest test-slow coverage bench install format clean

quickstart: $(STAMP)  ## the whole way once: train, adapt, score, export, segment
	$(FAST_MALLOC) $(BIN)/t2sda quickstart --output-dir output/quickstart

PROOF := output/proof/photographs
demo-model: $(STAMP)  ## README's photographs: rendered streets to real ones, about an hour; needs T2SDA_DATASETS
	$(FAST_MALLOC) $(BIN)/t2sda sweep benchmarks/proof/demo.yaml
	$(BIN)/t2sda export onnx $(PROOF)/t2sda/seed_1 --output output/demo-model.onnx --dynamic
	$(BIN)/python -m benchmarks.demo_figure $(PROOF)/source_only/seed_1 $(PROOF)/t2sda/seed_1

test: lint types pytest  ## lint, types and tests, in .venv (made at the first call)

install: $(STAMP)

$(STAMP): setup.py pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "t2sda needs Python 3.11 or newer; set PYTHON")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,onnx,openvino,trt-rtx,video,weights]'
	touch $(STAMP)

gpu-check: $(STAMP)  ## for whoever has a GPU: does everything work there? one report
	$(BIN)/t2sda gpu-check --output output/gpu-check.md

docs: $(STAMP)  ## the pages of docs/ as a site in build/site, links checked
	$(BIN)/mkdocs build

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy
	$(BIN)/mypy export

pytest: $(STAMP)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-slow: $(STAMP)  ## what takes minutes: everything marked slow
	$(BIN)/python -m pytest -n 2 -m slow

coverage: $(STAMP)  ## line coverage of losses, passes and engine by the tests of their own
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/losses tests/meta_arch tests/engine \
		--cov=t2sda.losses --cov=t2sda.meta_arch --cov=t2sda.engine \
		--cov-report=term-missing:skip-covered --cov-fail-under=95

bench: $(STAMP)  ## all benchmarks with their peers, one table; MODEL=FILE RUN=FOLDER for more
	$(FAST_MALLOC) $(BIN)/python -m benchmarks.bench --output output/bench \
		$(if $(MODEL),--model $(MODEL)) $(if $(RUN),--run $(RUN)) $(if $(QUICK),--quick)

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache output
