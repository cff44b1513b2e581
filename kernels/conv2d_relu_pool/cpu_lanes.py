"""What the fused block does with a `Block` of SIMD vectors, beside what conv2d does."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from kernels.conv2d.cpu_lanes import Block, Emitter


@intrinsic
def keep_maxima(
    typing: Any, block: Any, maxima: Any, places: Any, start: Any, row_step: Any, first: Any
) -> Any:
    """Let block[i, j] be cell `first + j` of the window whose maximum is kept at row i.

    Row i's vector of maxima begins at maxima[start + i * row_step], and in `places`, of bytes, at
    the same index the cell that each of them is. A cell takes over if it is greater than the
    maximum, or if it is the first NaN.
    """
    byte = ir.IntType(8)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        do = Emitter(context, builder, signature, args)
        for i in range(block.rows):
            at = do.plus(args[3], i, args[4])
            best = do.load(1, at)
            lanes = best.type.count
            wide = ir.VectorType(ir.IntType(block.dtype.bitwidth), lanes)
            pointer = builder.bitcast(do.pointer(2, at), ir.VectorType(byte, lanes).as_pointer())
            place = builder.zext(builder.load(pointer, align=1), wide)
            for j in range(block.cols):
                cell = builder.extract_value(args[0], i * block.cols + j)
                # "ugt" is true for a NaN too, on either side.
                takes = builder.and_(
                    builder.fcmp_unordered(">", cell, best),
                    builder.fcmp_ordered("ord", best, best),
                )
                number = builder.trunc(do.plus(args[5], j), wide.element)
                single = builder.insert_element(
                    ir.Constant(wide, ir.Undefined), number, ir.Constant(ir.IntType(32), 0)
                )
                zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
                numbers = builder.shuffle_vector(single, single, zeros)
                best = builder.select(takes, cell, best)
                place = builder.select(takes, numbers, place)
            do.store(best, 1, at)
            narrow = builder.trunc(place, ir.VectorType(byte, lanes))
            builder.store(narrow, pointer, align=1)
        return context.get_dummy_value()

    integer = types.int64
    return types.void(block, maxima, places, integer, integer, integer), emit


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
