"""Suites, shapes of the user's own, and sweeps."""

from __future__ import annotations

import pytest

from kernels.shapes import Conv2dShape, PoolShape
from profiling import suites


def test_lenet_has_both_layers_from_64_to_8192():
    cases = suites.cases(["lenet"], [])
    batches = [64 << i for i in range(8)]
    for name, c, k in (("conv1", 1, 6), ("conv2", 6, 16)):
        found = [case.shape for case in cases if case.group == f"lenet {name}"]
        assert [shape.n for shape in found] == batches
        assert {(shape.c, shape.k, shape.r) for shape in found} == {(c, k, 5)}
    assert cases[0].label == "lenet conv1 N=64"


@pytest.mark.parametrize("name", suites.SUITES)
def test_every_suite_has_shapes_that_exist(name: str):
    assert suites.cases([name], [])


def test_ece408_is_the_courses_project():
    first, second = (case.shape for case in suites.cases(["ece408"], []))
    assert first == Conv2dShape.of((10_000, 1, 48, 48), (6, 1, 5, 5))
    assert second.filter_shape == (16, 6, 5, 5)


def test_a_shape_of_the_users_own():
    (case,) = suites.cases([], ["64,1,28,30,6,5,3,2,1,2"])
    assert case.shape == Conv2dShape.of(
        (64, 1, 28, 30), (6, 1, 5, 3), stride=2, padding=1, dilation=2
    )
    (pool,) = suites.cases([], ["avg_pool2d:8,6,28,28,3,2,1"])
    assert (pool.operation, pool.shape) == (
        "avg_pool2d", PoolShape.of((8, 6, 28, 28), 3, stride=2, padding=1),
    )  # fmt: skip


def test_sweeps_multiply_and_add_and_combine():
    cases = suites.cases([], ["N=64:512:x2,1,28,28,6,5,5", "8,C=16:48:+16,8,8,4,3,3"])
    assert [case.shape.n for case in cases[:4]] == [64, 128, 256, 512]
    assert {case.group for case in cases[:4]} == {"*,1,28,28,6,5,5"}
    assert [case.shape.c for case in cases[4:]] == [16, 32, 48]
    grid = suites.cases([], ["1:2:x2,1:3:+1,8,8,4,3,3"])
    assert {(case.shape.n, case.shape.c) for case in grid} == {
        (n, c) for n in (1, 2) for c in (1, 2, 3)
    }


def test_batch_takes_the_place_of_the_suites_own():
    cases = suites.cases(["lenet"], [], "16:32:x2")
    assert sorted({case.shape.n for case in cases}) == [16, 32]


def test_what_two_suites_share_is_measured_once():
    once = suites.cases(["lenet"], [])
    assert len(suites.cases(["lenet", "lenet"], ["64,1,28,28,6,5,5,1,2"])) == len(once)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,2", "has 2 numbers; expected N,C,H,W,K,R,S[,stride[,padding[,dilation]]]"),
        ("1,2,3,4,5,6,7,8,9,10,11", "has 11 numbers"),
        ("", "has 1 numbers"),
        (
            "matmul:1,2,3,4,5",
            "unknown operation 'matmul'; expected one of conv2d, conv2d_relu_pool",
        ),
        ("max_pool2d:8,6,28,28", "has 4 numbers; expected N,C,H,W,size[,stride[,padding]]"),
        ("N=64:8192,1,28,28,6,5,5", "N is '64:8192'"),
        ("64:8:x2,1,28,28,6,5,5", "never gets from end to end"),
        ("8:64:x1,1,28,28,6,5,5", "never gets from end to end"),
        ("1:100000:+1,1,28,28,6,5,5", "sweeps more than 1,000 values"),
        ("1:999999999:+1,1,28,28,6,5,5", "sweeps more than 1,000 values"),
        ("1:99:+1,1:99:+1,28,28,6,5,5", "9,801 shapes; expected 1,000 at most"),
        ("a,1,28,28,6,5,5", "N is 'a'"),
        ("-1,1,28,28,6,5,5", "N is '-1'"),
        ("1.5,1,28,28,6,5,5", "N is '1.5'"),
        ("0,1,28,28,6,5,5", "an empty batch takes no time"),
        ("64,1,4,4,6,5,5", "the filter spans 5 rows but the padded input has 4"),
        ("64,1,28,28,6,5,5,0", "stride"),
        ("99999999999,1,28,28,6,5,5", "N is '99999999999'"),
        ("999999999,999,28,28,6,5,5", "kernels index with 32 bits"),
    ],
)
def test_what_is_no_shape_is_told_so(text: str, said: str):
    with pytest.raises(suites.SuiteError) as error:
        suites.cases([], [text])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_suite_is_told_the_others():
    with pytest.raises(suites.SuiteError, match="unknown suite 'alexnet'; expected one of lenet"):
        suites.cases(["alexnet"], [])


def test_one_shape_is_one_shape():
    assert suites.parse_shape("2,1,8,8,3,3,3", "conv2d").n == 2
    with pytest.raises(suites.SuiteError, match="is 2 shapes; expected one"):
        suites.parse_shape("1:2:x2,1,8,8,3,3,3", "conv2d")
