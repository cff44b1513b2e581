"""A kernel's arguments from a command line."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.emulator.arguments import Expected
from kernels.xray.arguments import ArgumentsError, Parameter, example, parse


def pointer(name: str, kind: str = "f", const: bool = False, size: int = 4) -> Parameter:
    spelled = {"f": "float", "S": "Pair", "V": "void"}.get(kind, "int")
    spelled = f"{'const ' if const else ''}{spelled}*"
    return Parameter(name, Expected(spelled, True, const, size, 4, kind, 4))


def number(name: str, kind: str = "i", size: int = 4) -> Parameter:
    return Parameter(name, Expected("a number", False, False, size, size, kind, size))


X, Y, N = pointer("x", const=True), pointer("y"), number("n")


def values(*texts: str, parameters=(X, Y, N)):
    return parse("scale", parameters, texts).values


def test_by_name_in_any_order_and_by_position():
    by_name = values("n=32", "y=empty:float32:32", "x=random:float32:32")
    mixed = values("random:32", "n=int32:32", "empty:32")
    for x, y, n in (by_name, mixed):
        assert (x.dtype, x.shape, y.shape) == (np.float32, (32,), (32,))
        assert (n, type(n)) == (32, np.int32)
    np.testing.assert_array_equal(by_name[0], mixed[0])


def test_initialisers():
    def made(text: str) -> np.ndarray:
        return values(text, parameters=(X,))[0]

    assert made("zeros:2x3").tolist() == [[0] * 3] * 2
    assert made("ones:2").tolist() == [1, 1]
    assert made("arange:2x2").tolist() == [[0, 1], [2, 3]]
    spread = made("random:10000")
    assert abs(spread.mean()) < 0.05
    assert abs(spread.std() - 1) < 0.05
    (whole,) = values("random:1000", parameters=(pointer("i", "i"),))
    assert whole.dtype == np.int32
    assert (whole.min(), whole.max()) == (0, 99)


def test_a_file_and_a_null_pointer(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(6, dtype=np.float32).reshape(2, 3).T)
    x, y, _ = values(f"x={tmp_path / 'x.npy'}", "y=null", "n=1")
    assert x.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert x.flags.c_contiguous
    assert y is None


def test_empty_arrays_that_may_be_written_are_outputs():
    given = parse("scale", (X, Y, pointer("z"), pointer("s", "S", size=8)),
                  ["empty:4", "empty:4", "zeros:4", "zeros:4"])  # fmt: skip
    x, y, z, s = given.values
    assert [one is y for one in given.outputs] == [True]
    assert [one is other for one, other in zip(given.inputs, (z, s), strict=True)] == [True, True]
    assert x is not None
    assert s.dtype.itemsize == 8


def test_numbers_have_the_kernels_type():
    assert values("1.5", parameters=(number("a", "f"),)) == (np.float32(1.5),)
    assert values("a=true", parameters=(number("a", "b", 1),)) == (np.bool_(True),)
    assert values("a=-1", parameters=(number("a", "i", 8),))[0].dtype == np.int64


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["z=1"], "no parameter is called 'z'; scale takes const float* x, float* y, a number n"),
        (["n=1", "n=2"], "n is given twice"),
        (["zeros:1", "zeros:1", "1", "2"], "--arg 2: one argument too many"),
        (["zeros:1"], "no --arg for float* y, a number n of scale; give for example "
                      "--arg y=empty:float32:1024 --arg n=int32:1024"),
        (["zeros:float64:1", "zeros:1", "1"], "got float64; the kernel takes const float* x"),
        (["zeros:half:1", "zeros:1", "1"], "'half' is no element type"),
        (["zero:1", "zeros:1", "1"], "'zero' is no initialiser"),
        (["zeros", "zeros:1", "1"], "expected INIT:TYPE:SHAPE"),
        (["zeros:a", "zeros:1", "1"], "expected INIT:TYPE:SHAPE"),
        (["zeros:1:2:3", "zeros:1", "1"], "expected INIT:TYPE:SHAPE"),
        (["zeros:0", "zeros:1", "1"], "without elements"),
        (["zeros:999999999999", "zeros:1", "1"], "takes 3,999,999,999,996 bytes; expected at most"),
        (["none.npy", "zeros:1", "1"], "cannot be read: No such file or directory"),
        (["zeros:1", "zeros:1", "1.5"], "'1.5' is no int32; expected a whole number from -2147"),
        (["zeros:1", "zeros:1", "99999999999"], "is no int32"),
        (["zeros:1", "zeros:1", "float32:1"], "got type 'float32'; the kernel takes a number n"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_so_in_one_line(texts, said):
    with pytest.raises(ArgumentsError) as error:
        values(*texts)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_void_needs_a_type_and_a_struct_by_value_cannot_be_given(tmp_path):
    nothing = pointer("p", "V", size=1)
    assert values("zeros:int16:3", parameters=(nothing,))[0].dtype == np.int16
    with pytest.raises(ArgumentsError, match="no element type"):
        values("zeros:3", parameters=(nothing,))
    struct = Parameter("s", Expected("Pair", False, False, 8, 4, "S", 8))
    with pytest.raises(ArgumentsError, match="a struct by value"):
        values("s=1", parameters=(struct,))
    wide = pointer("v", size=16)
    with pytest.raises(ArgumentsError, match="no multiple of the 16"):
        values("v=zeros:5", parameters=(wide,))
    (tmp_path / "x.npy").write_text("not one")
    with pytest.raises(ArgumentsError, match="cannot be read"):
        values(f"v={tmp_path / 'x.npy'}", parameters=(wide,))


def test_the_example_fits():
    parameters = (X, Y, N, number("a", "f"), number("b", "b", 1), pointer("p", "V", size=1))
    parse("f", parameters, [example(parameter, 32) for parameter in parameters])
