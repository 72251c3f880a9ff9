import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["OMP_NUM_THREADS"] = "1"  # child processes too: sums depend on the number of threads

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same global random state; nothing may depend on it in library code."""
    np.random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)
