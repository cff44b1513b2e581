"""Which lines belong to a function, and what of a program is host code."""

from __future__ import annotations

import pytest

from kernels.xray import excerpt
from kernels.xray.host_code import kernels_alone

PROGRAM = """\
#include <cuda_runtime.h>
#include <cfloat>
#include <vector>
using namespace std;
#define CHECK(call) do { if (call != cudaSuccess) { \\
    exit(1); } } while (0)
static const float FACTOR = 2.0f;
__constant__ float weights[9];
vector<float> on_host(1024);
struct Timer { cudaEvent_t start; };
struct Pair { int a, b; };
__device__ float twice(float v) { return 2 * v; }
int helper(int n) { return n; }
__global__ void scale(float* x) {
    printf("{ %d", threadIdx.x);  // }
    x[threadIdx.x] = twice(x[threadIdx.x]);
}

int main() {
    float* x;
    cudaMalloc(&x, 4);
    scale<<<1, 1>>>(x);
}
"""


def test_definitions_in_spite_of_braces_in_strings_comments_and_macros():
    assert excerpt.definitions(PROGRAM) == [
        (10, 10), (11, 11), (12, 12), (13, 13), (14, 17), (19, 23),
    ]  # fmt: skip


def test_a_line_brings_its_function_and_one_outside_comes_alone():
    assert excerpt.ranges(PROGRAM, [16, 15, 12, 8]) == [(8, 8), (12, 12), (14, 17)]


def test_braces_that_do_not_pair_give_the_rest_of_the_file():
    assert excerpt.definitions("void f() {\n{\n}\n") == [(1, 3)]


def test_host_code_is_blanked_and_every_other_line_stays_where_it_was():
    before, after = PROGRAM.splitlines(), kernels_alone(PROGRAM).splitlines()
    blanked = {number for number, line in enumerate(after, 1) if not line.strip(" ;")}
    assert blanked == {1, 3, 4, 9, 10, 18, *range(19, 24)}
    kept = [line for line in after if line.strip(" ;")]
    assert kept == [line for number, line in enumerate(before, 1) if number not in blanked]


@pytest.mark.parametrize(
    "code",
    [
        "__global__ void f(cudaTextureObject_t t) {}\n",  # the emulator says what it lacks
        "#include <cuda_fp16.h>\n",
        "template <class T> __device__ T f(T v) { return std::min(v, v); }\n",
        "namespace mine { __global__ void f() {} void host() { cudaFree(0); } }\n",
    ],
)
def test_what_kernels_use_is_left(code: str):
    assert kernels_alone(code) == code
