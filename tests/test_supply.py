"""What the program takes from outside: nothing at import, nothing from the network, versions that are written down."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "numpy", "cv2", "pyiqa", "basicsr", "pydantic")
CLOSED = """
import socket, traceback

attempts = []

def refuse(*arguments, **_):
    attempts.append("".join(traceback.format_stack(limit=8)))
    raise OSError("there is no network here")

class LocalOnly(socket.socket):
    def __init__(self, family=-1, type=-1, proto=-1, fileno=None):
        if fileno is None and family != socket.AF_UNIX:  # processes of one machine may talk to each other
            raise OSError("there is no network here")
        super().__init__(family, type, proto, fileno)

socket.socket = LocalOnly
for name in ("create_connection", "getaddrinfo", "gethostbyname", "gethostbyname_ex"):
    setattr(socket, name, refuse)
"""
"""Closes the network to the Python code of a process, and remembers who looked for another machine.

A socket alone is no attempt: libraries make one to see whether this machine knows IPv6.
"""
DEMO_BEGINS = """
from dataclasses import replace
from pathlib import Path
from sr_iqa.data import demo
from sr_iqa.study.demo import make_study, prepare

out = Path("demo")
demo.SHIPPED_PHOTOS = dict(list(demo.SHIPPED_PHOTOS.items())[:2])
data = demo.make_demo_sets(out / "data", patches_per_photo=1)
study = make_study(out, data, seeds=1)
prepare(study, data)
few = {"train.total_iter": 3, "train.warmup_iter": -1, "datasets.train.batch_size_per_gpu": 2}
amo = study.variants["amo"]
study = replace(study, variants={"amo": replace(amo, overrides={**amo.overrides, **few})})
study.train("amo", 0)
assert study.is_trained("amo", 0)
"""
DOCTOR = """
import sys
from pathlib import Path
from sr_iqa import cli

sys.argv = ["sr-iqa", "doctor"]
try:
    cli.main()
except SystemExit as end:
    assert not end.code, "the doctor found a problem"
"""


@pytest.mark.parametrize("module", ["sr_iqa", "sr_iqa.cli", "sr_iqa.doctor"])
def test_import_is_light(module):
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def without_network(code, folder):
    """Runs code in a process whose network is closed: (exit code, stdout, stderr)."""
    check = "\nassert not attempts, attempts[0]\n"
    result = subprocess.run([sys.executable, "-c", CLOSED + code + check], cwd=folder, capture_output=True, text=True)
    return result.returncode, result.stdout, result.stderr


def test_the_closed_network_is_closed(tmp_path):
    code, _, err = without_network("import urllib.request\nurllib.request.urlopen('http://localhost:1')", tmp_path)
    assert code == 1 and "there is no network here" in err
    assert without_network("a, b = socket.socketpair()", tmp_path)[0] == 0


def test_the_demo_needs_no_network(tmp_path):
    code, _, err = without_network(DEMO_BEGINS, tmp_path)
    assert code == 0, err


def test_the_doctor_needs_no_network_and_finds_no_problem_here(tmp_path):
    code, out, err = without_network(DOCTOR, tmp_path)
    assert code == 0, out + err
    assert list(tmp_path.iterdir()) == []


def requirements(lines):
    """Name -> requirement."""
    return {item.name: item for item in map(Requirement, lines)}


def test_tested_versions_are_written_down():
    """Every direct dependency has one version in constraints.txt, which satisfies what setup.cfg asks for."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lists = (setup["options"]["install_requires"], *setup["options.extras_require"].values())
    wanted = requirements(line for text in lists for line in text.splitlines() if line.strip())
    pinned = requirements(line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#"))
    assert pinned.keys() == wanted.keys()
    for name, pin in pinned.items():
        (specifier,) = pin.specifier
        assert specifier.operator == "==" and wanted[name].specifier.contains(specifier.version), f"{wanted[name]} but {pin}"
        assert str(pin.marker) == str(wanted[name].marker)
