# SPDX-License-Identifier: Apache-2.0
"""The counter of tensors' memory counts each piece once, while something lies in it."""

import torch

from tests.benchmarks.allocations import Allocations


def test_a_view_takes_no_memory_and_keeps_that_of_its_tensor() -> None:
    with Allocations() as seen:
        row = torch.zeros(10, 100)[0]
        assert seen.peak_bytes == 4000
        other = torch.zeros(50)
        assert seen.peak_bytes == 4200
    assert (len(row), len(other)) == (100, 50)


def test_memory_that_was_given_back_does_not_add_up() -> None:
    with Allocations() as seen:
        for _ in range(5):
            torch.zeros(100)
    assert seen.peak_bytes == seen.largest_bytes == 400


def test_what_was_there_before_is_not_counted() -> None:
    before = torch.zeros(1000)
    with Allocations() as seen:
        part = before[10:20]
        before.add_(1)
        part.add_(1)
    assert seen.peak_bytes == 0


def test_the_peak_is_more_than_the_largest_where_two_live_at_once() -> None:
    with Allocations() as seen:
        first, second = torch.zeros(100), torch.zeros(50)
    assert (seen.largest_bytes, seen.peak_bytes) == (400, 600)
    assert len(first) + len(second) == 150
