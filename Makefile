# Two commands for a newcomer: `make demo` and `make test`. Both set everything up in .venv first.
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && echo $$p && break; done)
PIP = .venv/bin/python -m pip --disable-pip-version-check -q

.PHONY: demo test test-slow check clean

demo: .venv/installed
	.venv/bin/sr-iqa demo

test: .venv/installed-test
	.venv/bin/python -m pytest

test-slow: .venv/installed-test
	.venv/bin/python -m pytest -m slow

check: .venv/installed-dev test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright

# Two OpenCV wheels come with the dependencies and share one folder: the headless one must be written last, after every install.
define headless_opencv
$(PIP) uninstall -y opencv-python opencv-python-headless
$(PIP) install --no-deps opencv-python-headless
endef

# basicsr's own build would download torch a second time, so it is built against the one in .venv.
.venv/installed: setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed: install one, or say make PYTHON=/path/to/it"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) install torch torchvision "setuptools>=77,<81" wheel cython numpy
	$(PIP) install --no-build-isolation -e .
	$(headless_opencv)
	touch $@

.venv/installed-test: .venv/installed
	$(PIP) install --no-build-isolation -e ".[test]"
	$(headless_opencv)
	touch $@

.venv/installed-dev: .venv/installed-test
	$(PIP) install --no-build-isolation -e ".[test,dev]"
	$(headless_opencv)
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
