# Two commands for a newcomer: `make demo` and `make test`. Both set everything up in .venv first.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
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

# basicsr's own build would download torch a second time, so it is built against the one in .venv;
# basicsr and pyiqa bring two OpenCV wheels that share one folder: the headless one must be written last.
.venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(PIP) install torch torchvision "setuptools>=77,<81" wheel cython numpy
	$(PIP) install --no-build-isolation -e .
	$(PIP) uninstall -y opencv-python opencv-python-headless
	$(PIP) install --no-deps opencv-python-headless
	touch $@

.venv/installed-test: .venv/installed
	$(PIP) install --no-build-isolation -e ".[test]"
	touch $@

.venv/installed-dev: .venv/installed-test
	$(PIP) install --no-build-isolation -e ".[test,dev]"
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
