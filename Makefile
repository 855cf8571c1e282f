# All targets use a virtual environment that the first call creates: .venv, or VENV=folder. Python 3.11 or later, pip and
# make are all that is required. `make help` lists the targets.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
comma := ,
SHELL := /bin/sh

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-all test-cuda fuzz check docs bench wheel clean
.DELETE_ON_ERROR:

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; do \
		printf '%-12s %s\n' "$$name" "$$what"; done

demo: $(VENV)/.with-openvino+demo  ## Grad-CAM on photographs of scikit-image, two short trainings, a comparison; pages to look at
	$(BIN)/python docs/demo_photos.py demo/photos
	$(BIN)/python docs/demo_scenes.py demo/scenes
	$(BIN)/salpipe generate demo/photos -o demo/shards
	$(BIN)/salpipe show demo/shards -o demo/gallery
	@echo "Open $(CURDIR)/demo/gallery/gallery.html in a browser: the saliency maps. The next steps train on such maps."
	$(BIN)/salpipe generate demo/scenes -o demo/scene-shards --size 128 --boxes demo/scenes/boxes.csv
	$(BIN)/salpipe train demo/scene-shards -o demo/baseline --arch baseline $(DEMO_TRAINING)
	$(BIN)/salpipe train demo/scene-shards -o demo/modulated --arch modulated $(DEMO_TRAINING)
	$(BIN)/salpipe evaluate demo/modulated demo/scene-shards
	$(BIN)/salpipe compare demo/scene-shards -o demo/comparison --uses zoom --oracle --control mismatched \
		--folds 6 --repeats 1 --per-class 8 --assess-images 50 $(DEMO_COMPARISON)
	@echo "Maps: $(CURDIR)/demo/gallery/gallery.html"
	@echo "Comparison: $(CURDIR)/demo/comparison/report.html"
	@echo "Learning curves: $(CURDIR)/demo/baseline/curves.png and $(CURDIR)/demo/modulated/curves.png"
DEMO_TRAINING := --size 64 --epochs 5 --lr 0.01 --schedule cosine
DEMO_COMPARISON := --size 64 --epochs 4 --lr 0.01 --schedule cosine --optimizer adamw --batch-size 8 --freeze features

# One thread per process. The quick tests of a file, and those of some folders (see tests/conftest.py), run in one
# process, since they share networks and trained runs.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations 25 --durations-min 1
TESTED := $(VENV)/.with-openvino+onnx+tensorboard+dask+parquet+fetch+heic+cloud+test
test: $(TESTED)  ## run all tests except the slow ones; TESTS='tests/cli -k config' runs a part
	$(PYTEST) --dist loadfile -m "not slow" $(TESTS)

test-slow: $(TESTED)  ## run the slow tests: many networks, many kills, clusters, the documentation's walkthroughs
	$(PYTEST) --dist worksteal -m slow $(TESTS)

test-all: test test-slow fuzz  ## run the whole suite, and fuzz for two minutes

# The time is divided among the kinds of files. Failures are kept in .cache/fuzz with the command that reproduces them.
FUZZED := $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(addprefix --kind ,$(KIND))
fuzz: $(TESTED)  ## read damaged files of every kind; MINUTES=10 SEED=3 KIND='shard png' set duration, seed and kinds
	$(BIN)/python -m tests.fuzz $(FUZZED)

test-cuda: $(TESTED)  ## run the tests that need a GPU
	$(BIN)/python -m pytest -m cuda $(or $(TESTS),tests/test_cuda.py)

check: $(TESTED) $(VENV)/.with-check  ## check lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.with-docs  ## build the documentation into docs/_build/html; warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "Open $(CURDIR)/docs/_build/html/index.html in a browser."

bench: $(TESTED) $(VENV)/.with-bench  ## run all benchmarks of tests/benchmarks
	@set -e; for file in tests/benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python "$$file"; done

# The wheel is tested in an environment of its own: its dependencies are taken from $(VENV) by a path file, which adds the
# libraries but not the checkout (path files of such folders are not read). That every file is in it is checked; the tests
# are those that can fail all the same: modules, templates and the command as installed, and the examples in docstrings.
WHEEL := .cache/wheel
IN_WHEEL := tests/test_packaging.py tests/test_architecture.py tests/cli/test_main.py tests/cli/test_generate.py \
	tests/gallery/test_page.py tests/comparison/test_report.py --pyargs saliency_pipeline
wheel: $(TESTED) $(VENV)/.with-check  ## build the wheel, install it, and run part of the tests with it
	rm -rf build/lib build/bdist.* dist $(WHEEL)
	$(BIN)/python -m build --wheel --outdir dist .
	$(BIN)/python .ci/check_wheel.py dist/*.whl
	$(BIN)/python -m venv --without-pip $(WHEEL)/venv
	$(BIN)/python -m pip --python $(WHEEL)/venv/bin/python install --no-deps dist/*.whl
	site='import sysconfig; print(sysconfig.get_path("purelib"))'; \
		$(BIN)/python -c "$$site" > "$$($(WHEEL)/venv/bin/python -c "$$site")/borrowed.pth"
	$(WHEEL)/venv/bin/python -m pip check
	mkdir -p $(WHEEL)/tree
	cp -R tests docs *.md *.cfg *.toml CITATION.cff Makefile $(WHEEL)/tree
	cd $(WHEEL)/tree && OMP_NUM_THREADS=1 ../venv/bin/python -m pytest -n 2 --dist loadfile -c setup.cfg --rootdir . \
		-m "not slow" $(or $(TESTS),$(IN_WHEEL))

clean:  ## remove everything that these targets created, including the environment
	rm -rf $(VENV) .cache build dist demo docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11; use another one: make PYTHON=python3.12" >&2; exit 1; }
	@# a Python without ensurepip (Debian's, unless python3-venv is installed) installs with its own pip
	$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(BIN)/python install pip; }

# .with-openvino+test: the checkout is installed with these extras, and again when its metadata change
$(VENV)/.with-%: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -e '.[$(subst +,$(comma),$*)]'
	@touch $@
