# What people and CI run. `make run` and `make test` install what they need.

PYTHON ?= python3
BIN := .venv/bin
# A virtual environment whose Python is gone, is too old or has no pip is made again.
SOUND := import sys, pip; sys.exit(sys.version_info < (3, 11))
$(shell [ ! -e .venv ] || $(BIN)/python -c '$(SOUND)' 2>/dev/null || rm -rf .venv)
# Any Python 3 reads this.
NEW_ENOUGH := import sys; sys.version_info >= (3, 11) or sys.exit("ssh-steward needs Python 3.11 or later, and $(PYTHON) is \
	%d.%d; name another one: make PYTHON=python3.13" % sys.version_info[:2])
# Tests mostly wait for machines, so there are more processes than cores; each has hosts and a network of its own.
WORKERS ?= 4
# Files in their order, since those of hosts take long and those of units, behind them, fill the gaps.
TESTS := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
ifdef CI
# CI takes only what is pinned by hash, the build system included.
install = $(PIP) --require-hashes -r requirements-ci.txt && $(PIP) --no-deps --no-build-isolation -e .
else
install = $(PIP) -c constraints.txt -e '.$(1)'
endif

.PHONY: help run test unit check conformance npm behaviour peers lint soak matrix bench fleet docs fmt constraints

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

run: .venv/run  ## start everything on an embedded SSH host
	$(BIN)/ssh-steward demo

test: .venv/test  ## run all tests, on real hosts where this machine can have them (20 min; the first time 3 more)
	$(BIN)/python -m tests.fleet tools
	$(TESTS)

unit: .venv/test  ## run the tests that need no host and start no program (1 min)
	$(BIN)/python -m pytest -n $(WORKERS) tests/unit $(PYTEST)

check: lint npm test  ## run everything CI runs (22 min)

conformance: .venv/test npm  ## run the official suite, the inspector and the TypeScript clients (2 min)
	$(BIN)/python -m pytest tests/protocol $(PYTEST)

behaviour: .venv/test $(if $(PEERS),peers)  ## show what our server does where things go wrong, with PEERS=1 also others (3 min)
	$(BIN)/python -m tests.behaviour ssh-steward $(if $(PEERS),peers)
	$(BIN)/python scripts/generate.py

peers:  ## install the servers that `make behaviour PEERS=1` compares with, into .peers (1 min)
	npm install --prefix .peers --ignore-scripts --no-package-lock --no-audit --no-fund --loglevel=error ssh-mcp@2.11.0
	for each in mcp-ssh-gateway==7.0.0 mcp-remote-ssh==0.4.0; do \
		$(PYTHON) -m venv .peers/$${each%%=*} && .peers/$${each%%=*}/bin/pip install --quiet $$each || exit 1; done

npm: tests/protocol/package.json  ## install what tests/protocol takes from npm, Node 22 included, into .npm (1 min)
	@if cmp -s $< .npm/ready; then :; \
	elif command -v npm >/dev/null; then \
		mkdir -p .npm && cp $< .npm/package.json && \
		npm install --prefix .npm --ignore-scripts --no-package-lock --no-audit --no-fund --loglevel=error && \
		cp $< .npm/ready; \
	else echo 'there is no npm here: tests/protocol will be skipped'; fi

lint: .venv/test .venv/lint  ## check format, types, layers, dead code and generated files (1 min)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/vulture
	$(BIN)/python scripts/generate.py --check

soak: npm .venv/test  ## run all tests with the counts and sizes the issues state (45 min)
	$(BIN)/python -m tests.fleet tools
	MCP_SSH_SOAK=1 $(TESTS)

matrix: .venv/test  ## try every tool on every distribution family, and put the table into docs/compatibility.md (3 min)
	MCP_SSH_MATRIX=1 $(BIN)/python -m pytest tests/hosts/test_matrix.py $(PYTEST)
	$(BIN)/python scripts/generate.py

bench: .venv/test  ## measure what things cost beside a reference (10 min)
	$(BIN)/python -m benchmarks

fleet: .venv/test  ## start the test hosts and print how to reach them
	$(BIN)/python -m tests.fleet up

docs: .venv/test  ## write the generated files
	$(BIN)/python scripts/generate.py

fmt: .venv/lint  ## format the code
	$(BIN)/ruff check --fix-only --quiet . || true
	$(BIN)/ruff format .

constraints: .venv/test .venv/lint  ## pin the versions that are installed now
	(head -1 constraints.txt; $(BIN)/pip freeze --exclude-editable) > .venv/constraints && cp .venv/constraints constraints.txt
	$(PIP) uv
	$(HASHES) -o requirements.txt
	$(HASHES) --extra test --extra lint -o requirements-ci.txt

# The hashes are those of the index that uv is set up with; no file names it.
HASHES := printf 'hatchling\neditables\n' | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--constraint constraints.txt --no-header --no-annotate --no-emit-index-url pyproject.toml -

.venv/bin/pip:
	@$(PYTHON) -c '$(NEW_ENOUGH)'
	$(PYTHON) -m venv .venv

.venv/run: .venv/bin/pip pyproject.toml constraints.txt requirements-ci.txt
	$(call install,)
	touch $@

.venv/test: .venv/run
	$(call install,[test])
	touch $@

.venv/lint: .venv/run
	$(call install,[lint])
	touch $@
