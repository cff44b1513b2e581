"""What the fused block does with a `Block` of SIMD vectors, beside what conv2d does."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from kernels.conv2d.cpu_lanes import VECTOR_BYTES, Block, Emitter
from kernels.shapes import CLOSED


@intrinsic
def keep_maxima(
    typing: Any,
    block: Any,
    maxima: Any,
    start: Any,
    row_step: Any,
    places: Any,
    place: Any,
    place_step: Any,
    first: Any,
) -> Any:
    """Let block[i, j] be cell `first + j` of the window whose maximum is kept at row i.

    Row i's vector of maxima begins at maxima[start + i * row_step], and the cell that each of them
    is, a byte, at places[place + i * place_step]. A cell takes over if it is greater than the
    maximum, or if it is the first NaN.
    """
    byte = ir.IntType(8)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        do = Emitter(context, builder, signature, args)
        for i in range(block.rows):
            at = do.plus(args[2], i, args[3])
            best = do.load(1, at)
            lanes = best.type.count
            wide = ir.VectorType(ir.IntType(block.dtype.bitwidth), lanes)
            pointer = builder.bitcast(
                do.pointer(4, do.plus(args[5], i, args[6])),
                ir.VectorType(byte, lanes).as_pointer(),
            )
            place = builder.zext(builder.load(pointer, align=1), wide)
            for j in range(block.cols):
                cell = builder.extract_value(args[0], i * block.cols + j)
                # "ugt" is true for a NaN too, on either side.
                takes = builder.and_(
                    builder.fcmp_unordered(">", cell, best),
                    builder.fcmp_ordered("ord", best, best),
                )
                number = builder.trunc(do.plus(args[7], j), wide.element)
                numbers = _splat(builder, number, lanes)
                best = builder.select(takes, cell, best)
                place = builder.select(takes, numbers, place)
            do.store(best, 1, at)
            narrow = builder.trunc(place, ir.VectorType(byte, lanes))
            builder.store(narrow, pointer, align=1)
        return context.get_dummy_value()

    integer = types.int64
    return types.void(block, maxima, integer, integer, places, integer, integer, integer), emit


@intrinsic
def loaded_at(
    typing: Any, source: Any, start: Any, places: Any, first: Any, cols: Any, lanes: Any
) -> Any:
    """Return source[start + places[first + j]] as a block of one row, len(lanes) elements wide."""
    block = Block(source.dtype, 1, len(cols), len(lanes))

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        do = Emitter(context, builder, signature, args, block.lanes)
        shifts = [do.entry(2, do.plus(args[3], j)) for j in range(block.cols)]
        return do.matrix(block, [do.load(0, builder.add(args[1], shift)) for shift in shifts])

    integer = types.int64
    return block(source, integer, places, integer, cols, lanes), emit


@intrinsic
def add_multiple(
    typing: Any,
    block: Any,
    values: Any,
    value: Any,
    target: Any,
    places: Any,
    first: Any,
    shift: Any,
) -> Any:
    """Add values[value] * block[0, j] to the vector at target[places[first + j] + shift]."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        do = Emitter(context, builder, signature, args, block.lanes)
        scale = do.broadcast(1, args[2])
        for j in range(block.cols):
            place = builder.add(do.entry(4, do.plus(args[5], j)), args[6])
            product = builder.fmul(builder.extract_value(args[0], j), scale, flags=("contract",))
            do.store(builder.fadd(do.load(3, place), product, flags=("contract",)), 3, place)
        return context.get_dummy_value()

    integer = types.int64
    return types.void(block, values, integer, target, places, integer, integer), emit


def _splat(builder: Any, scalar: Any, lanes: int) -> Any:
    """Return a vector that holds a scalar everywhere."""
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    single = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(single, single, zeros)


def _call(builder: Any, name: str, result: Any, args: list[Any]) -> Any:
    """Call one of LLVM's own functions."""
    function = builder.module.globals.get(name)
    if function is None:
        kind = ir.FunctionType(result, [arg.type for arg in args])
        function = ir.Function(builder.module, kind, name)
    return builder.call(function, args)


@intrinsic
def list_open(
    typing: Any,
    argmax: Any,
    first: Any,
    values: Any,
    start: Any,
    value_places: Any,
    place: Any,
    windows: Any,
    count: Any,
    steps: Any,
    places: Any,
    listed: Any,
    end: Any,
    sums: Any,
    at: Any,
) -> Any:
    """List the open ones of `count` windows, at most a vector, and return the list's new end.

    Window i's argmax is argmax[first + i], its gradient values[start + value_places[place + i]], or
    values[start + place + i] where `value_places` is None. The list grows from `end` on: `places`
    by windows[place + i] + cell // columns * steps[1] + cell * steps[2], and `listed` by the
    gradient, which is also added to the vector at sums[at]. ``steps[0]`` is 65536 // columns + 1,
    for a window's columns. Tables and list have room for a vector more.
    """
    lanes = VECTOR_BYTES * 8 // values.dtype.bitwidth
    word, scalar = ir.IntType(32), {32: ir.FloatType(), 64: ir.DoubleType()}[values.dtype.bitwidth]
    integers, floats = ir.VectorType(word, lanes), ir.VectorType(scalar, lanes)
    kind = f"f{values.dtype.bitwidth}"

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        do = Emitter(context, builder, signature, args)

        def address(arg: int, index: Any, vector: Any) -> Any:
            return builder.bitcast(do.pointer(arg, index), vector.as_pointer())

        # What is behind the last window counts as closed, and is not read.
        numbers = ir.Constant(integers, list(range(lanes)))
        count = _splat(builder, builder.trunc(args[7], word), lanes)
        closed = ir.Constant(ir.VectorType(ir.IntType(8), lanes), [CLOSED] * lanes)
        cells = _call(
            builder, f"llvm.masked.load.v{lanes}i8.p0", closed.type,
            [
                address(0, args[1], closed.type), ir.Constant(word, 1),
                builder.icmp_signed("<", numbers, count), closed,
            ],
        )  # fmt: skip
        takes = builder.icmp_unsigned("!=", cells, closed)
        if isinstance(value_places, types.Array):
            name = f"llvm.masked.gather.v{lanes}{kind}.v{lanes}p0"
            shifts = builder.load(address(4, args[5], integers), align=4)
            # llvmlite knows no "getelementptr" of a vector of indices.
            long = ir.VectorType(ir.IntType(64), lanes)
            width = ir.Constant(long, [values.dtype.bitwidth // 8] * lanes)
            start_bytes = builder.ptrtoint(do.pointer(2, args[3]), long.element)
            addresses = builder.add(
                builder.mul(builder.zext(shifts, long), width), _splat(builder, start_bytes, lanes)
            )
            pointer = builder.inttoptr(addresses, ir.VectorType(scalar.as_pointer(), lanes))
        else:
            name = f"llvm.masked.load.v{lanes}{kind}.p0"
            pointer = address(2, builder.add(args[3], args[5]), floats)
        size, zeros = (
            ir.Constant(word, values.dtype.bitwidth // 8),
            ir.Constant(floats, [0.0] * lanes),
        )
        gradient = _call(builder, name, floats, [pointer, size, takes, zeros])
        do.store(builder.fadd(do.load(12, args[13]), gradient), 12, args[13])
        inverse, row, col = (
            _splat(builder, do.entry(8, ir.Constant(ir.IntType(64), i)), lanes) for i in range(3)
        )
        # A byte's quotient is a product's upper half.
        cells = builder.zext(cells, integers)
        rows = builder.lshr(builder.mul(cells, inverse), ir.Constant(integers, [16] * lanes))
        reads = builder.add(builder.mul(rows, row), builder.mul(cells, col))
        reads = builder.add(reads, builder.load(address(6, args[5], integers), align=4))
        for vector, type_name, arg in ((reads, "i32", 9), (gradient, kind, 10)):
            chosen = _call(
                builder, f"llvm.experimental.vector.compress.v{lanes}{type_name}", vector.type,
                [vector, takes, ir.Constant(vector.type, ir.Undefined)],
            )  # fmt: skip
            builder.store(chosen, address(arg, args[11], vector.type), align=4)
        found = builder.ctpop(builder.bitcast(takes, ir.IntType(lanes)))
        return builder.add(args[11], builder.zext(found, ir.IntType(64)))

    integer = types.int64
    signature = integer(
        argmax, integer, values, integer, value_places, integer, windows, integer, steps,
        places, listed, integer, sums, integer,
    )  # fmt: skip
    return signature, emit


@intrinsic
def add_runs(
    typing: Any, block: Any, values: Any, value: Any, image: Any, start: Any, step: Any, runs: Any
) -> Any:
    """Add values[value] times len(runs) runs of vectors, `step` apart, to the block."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        do = Emitter(context, builder, signature, args, block.lanes)
        scale, sums = do.broadcast(1, args[2]), args[0]
        for j in range(block.cols):
            run, vector = divmod(j, block.cols // len(runs))
            place = do.plus(do.plus(args[4], vector * block.lanes), run, args[5])
            sums = do.multiply_add(sums, j, scale, do.load(3, place))
        return sums

    integer = types.int64
    return block(block, values, integer, image, integer, integer, runs), emit


@intrinsic
def add_and_hand_back(
    typing: Any,
    block: Any,
    values: Any,
    value: Any,
    image: Any,
    start: Any,
    step: Any,
    runs: Any,
    filters: Any,
    slots: Any,
) -> Any:
    """Do what `add_runs` does, and add values[value] times a filter to the same place of slots."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        do = Emitter(context, builder, signature, args, block.lanes)
        scale, sums = do.broadcast(1, args[2]), args[0]
        for j in range(block.cols):
            run, vector = divmod(j, block.cols // len(runs))
            place = do.plus(do.plus(args[4], vector * block.lanes), run, args[5])
            sums = do.multiply_add(sums, j, scale, do.load(3, place))
            product = builder.fmul(builder.extract_value(args[7], j), scale, flags=("contract",))
            do.store(builder.fadd(do.load(8, place), product, flags=("contract",)), 8, place)
        return sums

    integer = types.int64
    signature = block(block, values, integer, image, integer, integer, runs, filters, slots)
    return signature, emit
