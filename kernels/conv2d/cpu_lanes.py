"""Blocks of SIMD vectors for Numba: the register tile that every `cpu` convolution computes in.

Numba's own loops keep an accumulator in memory: a local array costs a load and a store for every
multiplication. A `Block` is a small matrix of SIMD vectors as one Numba value, so LLVM keeps it in
registers across a loop, and the loop itself stays ordinary Python:

    block = filled(bias, first, rows, cols)
    for j in range(reduction):
        block = add_scaled(block, w, j * len(rows), x, pixels, first, taps[j])

Each vector holds one cell of `lanes` different images. `rows` and `cols` are tuples of which only
the length counts: a tuple's length is part of its type, so every block size compiles by itself.
A start or a step counts elements of a flat array.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding  # type: ignore[import-untyped]
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, register_model

# One AVX-512 register, or one AVX register. Wider than the machine's own would still be right (LLVM
# splits it) but would need twice the registers.
WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f", False))
VECTOR_BYTES = 64 if WIDE else 32
# Accumulators a block may have: AVX-512 has 32 registers, AVX 16, and some hold operands.
BLOCK_VECTORS = 24 if WIDE else 12


class Block(types.Type):
    """The Numba type of `rows` x `cols` vectors of `lanes` elements, by default a register's."""

    def __init__(self, dtype: Any, rows: int, cols: int, lanes: int = 0) -> None:
        self.dtype, self.rows, self.cols = dtype, rows, cols
        self.lanes = lanes or VECTOR_BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Block({dtype}, {rows}, {cols}, {self.lanes})")


def _vector(dtype: Any, lanes: int = 0) -> ir.VectorType:
    scalar = {8: ir.IntType(8), 32: ir.FloatType(), 64: ir.DoubleType()}[dtype.bitwidth]
    return ir.VectorType(scalar, lanes or VECTOR_BYTES * 8 // dtype.bitwidth)


@register_model(Block)
class _BlockModel(models.PrimitiveModel):
    def __init__(self, manager: Any, block: Block) -> None:
        super().__init__(
            manager, block, ir.ArrayType(_vector(block.dtype, block.lanes), block.rows * block.cols)
        )


class Emitter:
    """The LLVM instructions that the intrinsics are made of, on vectors of `lanes` elements."""

    def __init__(
        self, context: Any, builder: Any, signature: Any, args: Any, lanes: int = 0
    ) -> None:
        self.context, self.builder, self.types, self.args = context, builder, signature.args, args
        self.lanes = lanes

    def pointer(self, arg: int, index: Any) -> Any:
        """Return the address of element `index` of the array that is argument `arg`."""
        array = self.context.make_array(self.types[arg])(self.context, self.builder, self.args[arg])
        return self.builder.gep(array.data, [index])

    def plus(self, index: Any, count: int, step: Any = None) -> Any:
        """Return index + count * step."""
        offset = ir.Constant(ir.IntType(64), count)
        if step is not None:
            offset = self.builder.mul(offset, step)
        return self.builder.add(index, offset)

    def entry(self, arg: int, index: Any) -> Any:
        """Load one element of argument `arg`."""
        return self.builder.load(self.pointer(arg, index))

    def _vector_pointer(self, arg: int, index: Any) -> Any:
        vector = _vector(self.types[arg].dtype, self.lanes)
        return self.builder.bitcast(self.pointer(arg, index), vector.as_pointer())

    def load(self, arg: int, index: Any) -> Any:
        """Load a vector that begins at element `index`, aligned or not."""
        align = self.types[arg].dtype.bitwidth // 8
        return self.builder.load(self._vector_pointer(arg, index), align=align)

    def store(self, vector: Any, arg: int, index: Any) -> None:
        """Store a vector at element `index`."""
        align = self.types[arg].dtype.bitwidth // 8
        self.builder.store(vector, self._vector_pointer(arg, index), align=align)

    def broadcast(self, arg: int, index: Any) -> Any:
        """Load one element into all lanes."""
        vector = _vector(self.types[arg].dtype, self.lanes)
        zero = ir.Constant(ir.IntType(32), 0)
        single = self.builder.insert_element(
            ir.Constant(vector, ir.Undefined), self.entry(arg, index), zero
        )
        mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
        return self.builder.shuffle_vector(single, single, mask)

    def multiply_add(self, block: Any, place: int, left: Any, right: Any) -> Any:
        """Return `block` with left * right added at `place`; "contract" lets it be one FMA."""
        product = self.builder.fmul(left, right, flags=("contract",))
        old = self.builder.extract_value(block, place)
        new = self.builder.fadd(old, product, flags=("contract",))
        return self.builder.insert_value(block, new, place)

    def matrix(self, block: Block, vectors: list[Any]) -> Any:
        """Return the vectors, row by row, as a block."""
        value = ir.Constant(self.context.get_value_type(block), ir.Undefined)
        for place, vector in enumerate(vectors):
            value = self.builder.insert_value(value, vector, place)
        return value


@intrinsic
def filled(typing: Any, values: Any, start: Any, rows: Any, cols: Any) -> Any:
    """Return a block whose row i holds values[start + i] everywhere."""
    block = Block(values.dtype, len(rows), len(cols))

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        do = Emitter(context, builder, signature, args)
        column = [do.broadcast(0, do.plus(args[1], i)) for i in range(block.rows)]
        return do.matrix(block, [value for value in column for _ in range(block.cols)])

    return block(values, types.int64, rows, cols), emit


@intrinsic
def loaded(typing: Any, source: Any, start: Any, rows: Any, cols: Any) -> Any:
    """Return the block that `store_dense` wrote at `start`."""
    block = Block(source.dtype, len(rows), len(cols))
    lanes = _vector(source.dtype).count

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        do = Emitter(context, builder, signature, args)
        count = block.rows * block.cols
        return do.matrix(block, [do.load(0, do.plus(args[1], i * lanes)) for i in range(count)])

    return block(source, types.int64, rows, cols), emit


@intrinsic
def store_dense(typing: Any, block: Any, target: Any, start: Any) -> Any:
    """Write the block's vectors one after the other, row by row."""
    lanes = _vector(target.dtype).count

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        do = Emitter(context, builder, signature, args)
        for place in range(block.rows * block.cols):
            vector = builder.extract_value(args[0], place)
            do.store(vector, 1, do.plus(args[2], place * lanes))
        return context.get_dummy_value()

    return types.void(block, target, types.int64), emit


@intrinsic
def store_at(
    typing: Any, block: Any, target: Any, start: Any, row_step: Any, places: Any, first: Any
) -> Any:
    """Write block[i, j] to target[start + i * row_step + places[first + j]]."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        do = Emitter(context, builder, signature, args, block.lanes)
        for j in range(block.cols):
            column = builder.add(args[2], do.entry(4, do.plus(args[5], j)))
            for i in range(block.rows):
                vector = builder.extract_value(args[0], i * block.cols + j)
                do.store(vector, 1, do.plus(column, i, args[3]))
        return context.get_dummy_value()

    return types.void(block, target, types.int64, types.int64, places, types.int64), emit


@intrinsic
def add_scaled(
    typing: Any,
    block: Any,
    weights: Any,
    weight: Any,
    cells: Any,
    places: Any,
    first: Any,
    shift: Any,
) -> Any:
    """Add weights[weight + i] * (the vector at cells[places[first + j] + shift]) to block[i, j]."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        do = Emitter(context, builder, signature, args, block.lanes)
        value = args[0]
        scales = [do.broadcast(1, do.plus(args[2], i)) for i in range(block.rows)]
        for j in range(block.cols):
            place = do.entry(4, do.plus(args[5], j))
            cell = do.load(3, builder.add(place, args[6]))
            for i in range(block.rows):
                value = do.multiply_add(value, i * block.cols + j, scales[i], cell)
        return value

    integer = types.int64
    return block(block, weights, integer, cells, places, integer, integer), emit


@intrinsic
def add_outer(
    typing: Any, block: Any, left: Any, start: Any, row_step: Any, right: Any, first: Any
) -> Any:
    """Add left[start + i * row_step] * (vector j of those from right[first] on) to block[i, j]."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        do = Emitter(context, builder, signature, args, block.lanes)
        value = args[0]
        columns = [do.load(4, do.plus(args[5], j * block.lanes)) for j in range(block.cols)]
        for i in range(block.rows):
            scale = do.broadcast(1, do.plus(args[2], i, args[3]))
            for j, column in enumerate(columns):
                value = do.multiply_add(value, i * block.cols + j, scale, column)
        return value

    integer = types.int64
    return block(block, left, integer, integer, right, integer), emit


@intrinsic
def add_lanewise(
    typing: Any,
    block: Any,
    left: Any,
    start: Any,
    row_step: Any,
    cells: Any,
    places: Any,
    first: Any,
    shift: Any,
) -> Any:
    """Add the vector left[start + i * row_step] * cells[places[first + j] + shift] to [i, j]."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        do = Emitter(context, builder, signature, args)
        value = args[0]
        column = [do.load(1, do.plus(args[2], i, args[3])) for i in range(block.rows)]
        for j in range(block.cols):
            place = do.entry(5, do.plus(args[6], j))
            cell = do.load(4, builder.add(place, args[7]))
            for i in range(block.rows):
                value = do.multiply_add(value, i * block.cols + j, column[i], cell)
        return value

    integer = types.int64
    signature = block(block, left, integer, integer, cells, places, integer, integer)
    return signature, emit


@intrinsic
def lane_sum(typing: Any, source: Any, start: Any) -> Any:
    """Return the sum of one vector's elements, halves first."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = Emitter(context, builder, signature, args).load(0, args[1])
        width = vector.type.count
        while width > 1:
            width //= 2
            upper = ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(width, 2 * width)))
            lower = ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(width)))
            vector = builder.fadd(
                builder.shuffle_vector(vector, vector, lower),
                builder.shuffle_vector(vector, vector, upper),
            )
        return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))

    return source.dtype(source, types.int64), emit


@intrinsic
def transpose(
    typing: Any,
    source: Any,
    source_starts: Any,
    source_shift: Any,
    target: Any,
    target_starts: Any,
    target_shift: Any,
    like: Any,
) -> Any:
    """Transpose: element i of vector j becomes element j of vector i, all lanes of `like`.

    Vector j is read at source_starts[j] + source_shift; the turned vector i is written at
    target_starts[i] + target_shift.
    """
    lanes = _vector(like.dtype).count

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        do = Emitter(context, builder, signature, args, lanes)
        constants = [ir.Constant(ir.IntType(64), i) for i in range(lanes)]
        rows = [do.load(0, builder.add(do.entry(1, i), args[2])) for i in constants]
        half = lanes // 2
        halves = []
        for first in (0, half):
            order = [index for i in range(first, first + half) for index in (i, lanes + i)]
            halves.append(ir.Constant(ir.VectorType(ir.IntType(32), lanes), order))
        # Interleaving row i with row i + lanes/2 rotates the bits of (row, element) by one; after
        # log2(lanes) rounds row and element have changed places.
        for _ in range(lanes.bit_length() - 1):
            rows = [
                builder.shuffle_vector(rows[i], rows[i + half], mask)
                for i in range(half)
                for mask in halves
            ]
        for i, row in zip(constants, rows, strict=True):
            do.store(row, 3, builder.add(do.entry(4, i), args[5]))
        return context.get_dummy_value()

    integer = types.int64
    signature = types.void(source, source_starts, integer, target, target_starts, integer, like)
    return signature, emit


@njit(cache=True, nogil=True)
def aligned_empty(count: int, like: np.ndarray) -> np.ndarray:
    """Return `count` unset elements of `like`'s dtype that begin on a vector's boundary.

    A vector that straddles two cache lines costs two reads.
    """
    spare = VECTOR_BYTES // like.itemsize
    array = np.empty(count + spare, like.dtype)
    skip = (-array.ctypes.data % VECTOR_BYTES) // like.itemsize
    return array[skip : skip + count]
