# Everything sets itself up: a virtual environment in .venv with the versions of
# constraints.txt. Choose another interpreter with `make test PYTHON=python3.12`.

PYTHON ?= python3
ARGS ?=
JOBS ?= 2

BIN := .venv/bin
STAMP := .venv/.installed
EXTRAS := generator,jets,plot,histfactory,flax,dev

.PHONY: help demo check-gradient test check format api constraints clean

help:
	@echo "make demo            events to uncertainty, optimised; writes report/report.html"
	@echo "make check-gradient  the end-to-end gradient against its oracles"
	@echo "make test            the test suite"
	@echo "make check           lint, format and types"
	@echo "make bench-AREA      a benchmark, e.g. bench-pipeline (QUICK=1 for a short one)"
	@echo "make format          format the code and fix what ruff can fix"
	@echo "make api             renew the snapshot of the public API"
	@echo "make constraints     renew constraints.txt from .venv"
	@echo "make clean           remove .venv, caches and build outputs"

demo: $(STAMP)
	$(BIN)/diffhep demo $(ARGS)

check-gradient: $(STAMP)
	$(BIN)/diffhep check-gradient $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --max-worker-restart 0 \
	    $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-%: $(STAMP)
	@test -e benchmarks/$*.py || { echo "make: there is no benchmark '$*'; \
	there are: $$(cd benchmarks && ls [a-z]*.py | sed 's/\.py$$//' | xargs)." >&2; \
	exit 2; }
	$(BIN)/python -m benchmarks.$* $(ARGS)

api: $(STAMP)
	$(BIN)/python tests/api_snapshot.py

constraints: $(STAMP)
	$(BIN)/python .ci/constraints.py

clean:
	rm -rf .venv .jax_cache .pytest_cache .ruff_cache .hypothesis build dist \
	    *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	    || { echo "make: '$(PYTHON)' is not Python 3.11, 3.12 or 3.13; name one that \
	is, for example: make PYTHON=python3.12" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; echo \
	"make: '$(PYTHON) -m venv' failed; install your system's python3-venv package." \
	>&2; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@
