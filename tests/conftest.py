import importlib.util
import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["OMP_NUM_THREADS"] = "1"  # child processes too: sums depend on the number of threads

import numpy as np
import pytest
import torch

HAS_BASICSR = importlib.util.find_spec("basicsr") is not None


def _skip_without_basicsr():
    """Where basicsr cannot be installed (Python 3.13), a test that fails because of that is skipped, and says so."""
    try:
        return (yield)
    except Exception as error:
        if not HAS_BASICSR and ("basicsr" in str(error).lower() or "niqe_pris_params" in str(error)):
            pytest.skip("needs basicsr")
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    return (yield from _skip_without_basicsr())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    return (yield from _skip_without_basicsr())


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same global random state; nothing may depend on it in library code."""
    np.random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)
