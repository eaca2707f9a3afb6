# make demo: all stages on the embedded corpus; downloads no model and no data.
# make test: lint, types and all tests except the slow ones. make test-slow: the slow tests.
# make test-compatibility: a small run on transformers 4.57, whose packages optimum loads.
# make test-javascript: packages in transformers.js and onnxruntime-web; needs npm, and chromium for the browser.
# make peers PACKAGES="models/A models/B" ENCODER=FOLDER STUDENT=runs/B OUT=peers/NAME: measure other tools beside them,
#   see docs/peers.md.
# make docs: the documentation as a site. make docs-check: its strict build.
# Each target sets up everything it needs on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_RUN := demo
WORKERS := -n logical --dist loadfile
OPTIMUM := .venv-optimum
JAVASCRIPT := .javascript
DOCS := .venv-docs
OUT ?= peers

.PHONY: demo test test-slow test-compatibility test-javascript peers docs docs-check clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hbt needs Python 3.11 or later: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

demo: $(READY)
	@rm -rf runs/$(DEMO_RUN) models/demo
	$(BIN)/hbt data demo
	$(BIN)/hbt run --recipe recipes/demo.toml --output models/demo --force
	$(BIN)/hbt bench models/demo --output bench/demo
	$(BIN)/hbt verify models/demo
	$(BIN)/hbt predict models/demo "খাবারটা মোটেও খারাপ না, আবার আসব।" "ক্যামেরা ভালো কিন্তু ব্যাটারি একদম বাজে।"
	@echo
	@echo 'The package: models/demo   The run: runs/$(DEMO_RUN)   MLflow: $(BIN)/hbt ui'
	@echo 'Next, with your own labeled file: $(BIN)/hbt data FILE.csv'

test: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -m "not slow" $(WORKERS)

test-slow: $(READY)
	$(BIN)/pytest -m slow $(WORKERS)

$(OPTIMUM)/.ready: pyproject.toml constraints-optimum.txt
	$(PYTHON) -m venv $(OPTIMUM)
	$(OPTIMUM)/bin/pip install -qq --disable-pip-version-check -c constraints-optimum.txt torch
	$(OPTIMUM)/bin/pip install -qq --disable-pip-version-check -c constraints-optimum.txt -e '.[optimum]' pytest
	touch $(OPTIMUM)/.ready

test-compatibility: $(OPTIMUM)/.ready
	$(OPTIMUM)/bin/pytest -m slow tests/compatibility

$(JAVASCRIPT)/.ready: tests/compatibility/package.json
	mkdir -p $(JAVASCRIPT)
	cp tests/compatibility/package.json $(JAVASCRIPT)
	npm install --prefix $(JAVASCRIPT) --ignore-scripts --no-audit --no-fund --silent
	touch $(JAVASCRIPT)/.ready

test-javascript: $(READY) $(JAVASCRIPT)/.ready
	HBT_NODE_MODULES=$(CURDIR)/$(JAVASCRIPT)/node_modules $(BIN)/pytest -m slow tests/compatibility/test_javascript.py

peers: $(READY) $(OPTIMUM)/.ready
	$(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt -e '.[peers]'
	$(BIN)/python -m benchmarks.peers $(PACKAGES) --encoder $(ENCODER) $(if $(STUDENT),--student $(STUDENT)) \
		--python optimum=$(OPTIMUM)/bin/python --out $(OUT)

# The extra [docs] alone: the site is built from source files, without torch.
$(DOCS)/.ready: pyproject.toml constraints-docs.txt
	$(PYTHON) -m venv $(DOCS)
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' > $(DOCS)/requirements.txt
	$(DOCS)/bin/pip install -qq --disable-pip-version-check -c constraints-docs.txt -r $(DOCS)/requirements.txt
	touch $(DOCS)/.ready

docs: $(DOCS)/.ready
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs serve

docs-check: $(DOCS)/.ready
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) $(OPTIMUM) $(JAVASCRIPT) $(DOCS) site runs bench mlruns mlflow.db
