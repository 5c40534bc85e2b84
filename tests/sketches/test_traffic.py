"""Byte counters, and the published example of the formulas."""

import pytest

from openwork.sketches import Traffic, rand_k_bytes, replicated_bytes, ring_bytes, server_bytes, sharded_bytes


def test_formulas_on_25_6_million_weights_of_4_bytes_and_8_workers() -> None:
    size, workers = 25_600_000, 8
    assert ring_bytes(size, workers) == pytest.approx(179.2e6)
    assert replicated_bytes(size, workers) == pytest.approx(89.6e6)
    assert sharded_bytes(size, workers) == pytest.approx(11.2e6)
    assert server_bytes(size, workers) == pytest.approx(12.8e6)
    assert rand_k_bytes(1000, workers) == 28_000


def test_shares_are_padded_to_one_length() -> None:
    assert replicated_bytes(10, 4, value_bytes=8) == 3 * 3 * 8


def test_one_worker_sends_nothing() -> None:
    assert ring_bytes(10, 1) == replicated_bytes(10, 1) == sharded_bytes(10, 1) == rand_k_bytes(3, 1) == 0


def test_a_step_has_what_was_sent_since_the_last_one() -> None:
    traffic = Traffic()
    traffic.add("broadcast", 100)
    traffic.start()
    traffic.add("all_gather", 8)
    traffic.step()
    assert (traffic.total, traffic.step_bytes, traffic.steps) == (108, 8, 1)
    traffic.add("all_gather", 8)
    traffic.add("all_reduce", 3)
    traffic.step()
    assert (traffic.total, traffic.step_bytes, traffic.steps) == (119, 11, 2)
    assert traffic.sent == {"broadcast": 100, "all_gather": 16, "all_reduce": 3}
