# The one task file, for people and for CI. Use it inside a virtual environment: pip install -e '.[dev]'
PYTHON ?= python
TYPED = build/types
NATIVE_SOURCES = $(wildcard kernels/*.h kernels/*.cpp kernels/*.cu tests/kernels/*.h tests/kernels/*.cpp)

.PHONY: bench bundle check clean docs format fuzz gpu lint test test-export types types-tensorrt

check: lint types test test-export

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	typos
	clang-format --dry-run -Werror $(NATIVE_SOURCES)

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
	clang-format -i $(NATIVE_SOURCES)

# export/, kernels/ and benchmarks/ install inside the package (pyproject.toml, package-dir). mypy cannot follow that
# mapping in an editable install, so it gets the installed layout as a folder of links and is run from there.
types:
	rm -rf $(TYPED)
	mkdir -p $(TYPED)/edgehem
	ln -s $(CURDIR)/edgehem/* $(CURDIR)/export $(CURDIR)/kernels $(CURDIR)/benchmarks $(TYPED)/edgehem/
	cd $(TYPED) && $(PYTHON) -m mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache -p edgehem

# The protocols of edgehem/backends/tensorrt/api.py beside NVIDIA's stubs of TensorRT, in a virtual environment of its
# own: the stubs claim to need TensorRT itself, which is not on the package index.
STUBBED = build/types-tensorrt
types-tensorrt:
	test -x $(STUBBED)/bin/pyright || { $(PYTHON) -m venv $(STUBBED) && $(STUBBED)/bin/pip install -q pyright; }
	$(STUBBED)/bin/pip install -q --no-deps "tensorrt-stubs==10.13.*"
	$(STUBBED)/bin/pyright --project tests/typing --pythonpath $(STUBBED)/bin/python --warnings

test:
	$(PYTHON) -m pytest -m "not torch"

# Needs the [export] extra, and holds its rules to a real builder where [dev] has it; and the engines' tests once more, where [cpu] is there (the README's command has it not).
test-export:
	$(PYTHON) -m pytest -m torch
	$(PYTHON) -m pytest -m tensorrt
	$(PYTHON) -m pytest -m "not torch" tests/test_backends.py tests/test_compile.py tests/test_device.py \
		tests/test_latency_compare.py

# Everything that a machine with an NVIDIA GPU can show, into benchmarks/results/.
gpu:
	PYTHON=$(PYTHON) benchmarks/gpu.sh

# Timings: tells, never decides a test.
bench:
	$(PYTHON) -m pytest benchmarks/suite --benchmark-only --benchmark-columns=median,iqr,min,rounds -q

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

docs:
	$(PYTHON) docs/make_codes.py
	$(PYTHON) docs/make_intake.py

# Ten minutes of spoilt studies; `make test` has a few seconds of it.
fuzz:
	$(PYTHON) tests/fuzz/intake.py --seconds 600

# Rebuild the shipped bundle from seeds: phantoms, training (about an hour on 2 cores), ONNX, INT8, judgement.
RUN = runs/hemorrhagenet
bundle:
	edgehem train hemorrhagenet --data phantom-heads:400:1 --out runs/first.pt
	edgehem train hemorrhagenet --data phantom-thick:110:4 --init runs/first.pt --out $(RUN).pt --seed 1
	rm -rf $(RUN)
	edgehem export $(RUN).pt --system hemorrhagenet --out $(RUN) --calibration phantoms:240:2 --int8 \
		--evaluate phantoms:200:3
	rm -rf edgehem/bundles/hemorrhagenet
	cp -r $(RUN) edgehem/bundles/hemorrhagenet
