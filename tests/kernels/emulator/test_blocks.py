"""Threads, blocks, barriers and shared memory."""

import threading

import numpy as np
import pytest

from kernels import emulator


def test_three_dimensions(shared, any_order):
    grid, block = (3, 2, 4), (5, 3, 2)
    out = np.full(24 * 30, -1, np.int32)
    shared.get_function("place")(grid, block, (out,))
    expected = np.arange(24)[:, None] * 10000 + np.arange(30)[None, :]
    np.testing.assert_array_equal(out.reshape(24, 30), expected)


@pytest.mark.parametrize("threads", [64, 100, 256])
def test_static_and_dynamic_shared_memory(shared, any_order, threads):
    blocks = 7
    x = np.random.default_rng(1).standard_normal((blocks, threads)).astype(np.float32)
    y = np.full_like(x, np.nan)
    shared.get_function("rotate")((blocks,), (threads,), (x, y), shared_mem=4 * threads)
    expected = np.roll(x + 2 * x + np.float32(1.5 + 63), -4, axis=1)
    np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_dynamic_arrays_are_one_memory(shared):
    out = np.zeros(32, np.int32)
    shared.get_function("two_dynamic")((1,), (32,), (out,), shared_mem=128)
    np.testing.assert_array_equal(out, np.arange(32)[::-1])


def test_shared_memory_starts_as_nan_in_every_block(shared):
    out = np.zeros(32, np.float32)
    with emulator.settings(workers=1):
        shared.get_function("unset")((5,), (32,), (out,))
    assert np.isnan(out).all()


@pytest.mark.parametrize(
    ("values", "expected"), [([1, 2, 3, 4], 101), ([4, 5, 6, 7], 411), ([0, 0, 0, 0], 0)]
)
def test_barriers_that_vote(shared, values, expected):
    out = np.zeros(4, np.int32)
    shared.get_function("votes")((1,), (4,), (np.array(values, np.int32), out))
    assert (out == expected).all()


def test_a_missing_barrier_shows(shared):
    results = {}
    for order in ("forward", "reverse"):
        results[order] = np.zeros(64, np.int32)
        with emulator.settings(order=order):
            shared.get_function("race")((1,), (64,), (results[order],))
    # Forward, the neighbour has not written yet: -1 is what shared memory starts with.
    np.testing.assert_array_equal(results["forward"], [-1] * 63 + [0])
    np.testing.assert_array_equal(results["reverse"], [*range(1, 64), -1])


def test_orders(shared):
    def arrival(**settings):
        out, ticket = np.zeros(128, np.int32), np.zeros(1, np.int32)
        with emulator.settings(**settings):
            shared.get_function("order_of_arrival")((1,), (64,), (out, ticket))
        return out.reshape(2, 64)

    np.testing.assert_array_equal(arrival(order="forward"), [np.arange(64)] * 2)
    np.testing.assert_array_equal(arrival(order="reverse"), [np.arange(64)[::-1]] * 2)
    first, second = arrival(order="random", seed=1)
    assert sorted(first) == sorted(second) == list(range(64))
    assert list(first) != list(second) != list(range(64))
    np.testing.assert_array_equal(arrival(order="random", seed=1), [first, second])
    assert list(arrival(order="random", seed=2)[0]) != list(first)


@pytest.mark.parametrize("blocks", [1, 2, 37, 1000])
def test_order_of_blocks(shared, blocks):
    def arrival(order):
        out, ticket = np.zeros(blocks, np.int32), np.zeros(1, np.int32)
        with emulator.settings(order=order, workers=1):
            shared.get_function("order_of_blocks")((blocks,), (1,), (out, ticket))
        return out

    np.testing.assert_array_equal(arrival("forward"), np.arange(blocks))
    np.testing.assert_array_equal(arrival("reverse"), np.arange(blocks)[::-1])
    assert sorted(arrival("random")) == list(range(blocks))
    assert blocks < 37 or list(arrival("random")) != list(range(blocks))


def test_constant_and_device_globals(shared):
    out = np.zeros(8, np.float32)
    shared.get_function("globals")((1,), (8,), (out,))
    np.testing.assert_array_equal(out, [6, 7, 9, 13] * 2)


def test_a_write_behind_dynamic_shared_memory_is_told(shared):
    fn = shared.get_function("past_the_end")
    fn((1,), (31,), (), shared_mem=128)
    with pytest.raises(emulator.IllegalAddress, match=r"past_the_end.*byte 128 of its dynamic"):
        fn((1,), (32,), (), shared_mem=128)


def test_templates_and_macros(shared):
    x = np.arange(4, dtype=np.float32)
    shared.get_function("scale<float, 3>")((1,), (4,), (x,))
    np.testing.assert_array_equal(x, [0, 3, 6, 9])
    i = np.arange(4, dtype=np.int32)
    shared.get_function("scale<int,2>")((1,), (4,), (i,))
    shared.get_function("by_macro")((1,), (2,), (i,))
    np.testing.assert_array_equal(i, [42, 42, 4, 6])
    shared.get_function("inner::spaced")((1,), (1,), (i,))
    assert i[0] == 8


def test_only_real_kernels_are_listed(shared):
    assert "place" in shared.kernels
    assert not {"not_there", "commented_out"} & set(shared.kernels)
    with pytest.raises(emulator.EmulatorError, match=r"shared.cu has no kernel 'x'; it has place"):
        shared.get_function("x")


def test_launches_from_two_threads(shared):
    fn = shared.get_function("rotate")
    wrong = []

    def work(seed):
        x = np.random.default_rng(seed).random((16, 64)).astype(np.float32)
        for _ in range(30):
            y = np.full_like(x, np.nan)
            fn((16,), (64,), (x, y), shared_mem=256)
            if not np.allclose(y, np.roll(3 * x + np.float32(64.5), -4, axis=1)):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_settings_nest_and_override_in_part():
    with emulator.settings(order="reverse", workers=2) as outer:
        with emulator.settings(time_limit=None) as inner:
            assert (inner.order, inner.workers, inner.time_limit) == ("reverse", 2, None)
        assert outer.time_limit == 60.0
    with (
        pytest.raises(ValueError, match="order is 'sideways'"),
        emulator.settings(order="sideways"),
    ):
        pass
    with pytest.raises(ValueError, match="workers is 0"), emulator.settings(workers=0):
        pass
    with pytest.raises(TypeError), emulator.settings(colour="red"):
        pass
