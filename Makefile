# Every target sets up what it needs: only Python (3.11 or newer), gcc and make are expected.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
RUN := runs/demo
JOBS ?= 2
GALLERY ?= 1

.PHONY: setup demo test test-browser bench dist docs lint lint-page format clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test,lint]"
	touch $(READY)

# The main job: train Burgers' equation with influence resampling, attribute, draw.
demo: $(READY)
	rm -rf $(RUN)
	$(BIN)/whence train burgers --recipe own_network --out $(RUN) --seed 0 --max-seconds 120
	$(BIN)/whence influence $(RUN)
	$(BIN)/whence plot $(RUN)

# Two processes of one thread each (tests/conftest.py), for two cores: JOBS=0 runs in one process.
# Commands in tests are hundreds of processes, each of which would compile the package anew where
# compiled files are not written.
test: $(READY)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(JOBS) --dist worksteal --durations=30 --durations-min=5

# The explorer's page in Debian's chromium. Where that cannot be installed the tests are passed
# over, and say so.
test-browser: $(READY)
	command -v chromium > /dev/null || .ci/install-chromium || echo "no chromium: these tests are passed over"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[browser]"
	$(BIN)/python -m pytest -rs tests/explore/test_accessibility.py tests/explore/test_browser.py \
	  tests/explore/test_report_in_browser.py tests/explore/test_run_page_in_browser.py \
	  tests/explore/test_samples_in_browser.py

# Speed and memory beside captum, DeepXDE, PINA and pyDVL, about 40 minutes; leave the machine idle
# meanwhile. curvlinops brings torchvision, whose builds need not fit torch's and then break PINA.
bench: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[bench]"
	$(BIN)/python -m pip install --quiet --no-deps "pyDVL>=0.10"
	$(BIN)/python -m pip uninstall --quiet --yes torchvision
	$(BIN)/python -m benchmarks

# The documentation in docs/_build/html, the gallery's examples run: without warnings or not at all.
# GALLERY=0 leaves the examples out.
docs: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -b html -W --keep-going -D plot_gallery=$(GALLERY) docs docs/_build/html

# An sdist and a wheel in dist, each installed into an environment of its own and used there.
dist: $(READY)
	rm -rf build dist
	$(BIN)/python -m pip install --quiet "build>=1.2"
	$(BIN)/python -m build
	.ci/smoke dist/*.whl $(BIN)/python
	.ci/smoke dist/*.tar.gz $(BIN)/python

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy whence

# Types, style and unit tests of the explorer's page, where there is npm; what they need stays in
# .ci/page/node_modules, which the browser tests look into for axe-core.
lint-page:
	command -v npm > /dev/null || { echo "no npm: the page is not checked"; exit 0; }; \
	npm install --silent --no-audit --no-fund --fetch-retries 0 --prefix .ci/page \
	|| { echo "npm cannot install here: the page is not checked"; exit 0; }; \
	.ci/page/node_modules/.bin/tsc -p .ci/page && \
	.ci/page/node_modules/.bin/eslint --config .ci/page/eslint.config.js whence/explore/page tests/explore/page

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) docs/_build docs/gallery docs/reference build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
