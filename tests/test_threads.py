"""Work in threads: order, bounded memory, errors."""

import threading
import time

import pytest
import torch

from sr_iqa.threads import in_threads, torch_threads_apart


def test_results_come_in_order():
    assert list(in_threads(lambda i: (time.sleep(0.002 * (i % 3)), i)[1], range(20), workers=4)) == list(range(20))
    assert list(in_threads(str, [])) == []


def test_no_more_is_begun_than_is_taken():
    begun = []
    results = in_threads(begun.append, range(100), workers=2)
    next(results)
    time.sleep(0.05)
    assert len(begun) <= 7
    results.close()
    assert len(begun) <= 7


def test_an_error_comes_at_its_turn():
    def work(i):
        if i == 3:
            raise KeyError(i)
        return i

    results = in_threads(work, range(100), workers=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError):
        next(results)


def test_torch_works_in_one_thread_per_caller():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch_threads_apart() as callers:
            inside = list(in_threads(lambda _: (threading.current_thread().name, torch.get_num_threads()), range(4), callers))
            assert callers == 2 and {threads for _, threads in inside} == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
