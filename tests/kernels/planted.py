"""Faults planted in the lab's own kernels, each one edit: the check must reject every one.

A plant replaces one piece of text (which must occur exactly once) of a healthy file. The edits are
the mistakes that people make; the comment of each says what a reader would have missed.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from kernels.source import ROOT


@dataclasses.dataclass(frozen=True)
class Plant:
    """One fault: in `file`, `healthy` becomes `faulty`; it shows in the kernel `row`."""

    name: str
    operation: str
    row: str
    source: str  # where the technique's module has the CudaSource: an attribute, or one of another
    file: str
    healthy: str
    faulty: str

    def write(self, folder: Path) -> Path:
        """Write the technique's file and the headers, one of them faulty; return the .cu file."""
        main = _FILES[self.row, self.source]
        for path in (main, *_HEADERS):
            text = (ROOT / path).read_text()
            if path == self.file:
                text = self._edit(text)
            copy = folder / (path if path in _HEADERS else Path(path).name)
            copy.parent.mkdir(exist_ok=True)
            copy.write_text(text)
        return folder / Path(main).name

    def _edit(self, text: str) -> str:
        # Layout is clang-format's: white space in the pattern matches any.
        pattern = r"\s*".join(map(re.escape, self.healthy.split()))
        edited, count = re.subn(pattern, lambda _: self.faulty, text)
        if count != 1:
            raise AssertionError(
                f"{self.name}: {self.healthy!r} occurs {count} times in {self.file}"
            )
        return edited


_HEADERS = (
    *(header.name for header in ROOT.glob("*.cuh")),
    "conv2d/window.cuh",
    "conv2d/winograd.cuh",
    *(f"conv2d_relu_pool/{header.name}" for header in ROOT.glob("conv2d_relu_pool/*.cuh")),
)
_FILES = {
    ("naive", "source"): "conv2d/naive.cu",
    ("tiled", "source"): "conv2d/tiled.cu",
    ("tiled", "filter_source"): "conv2d/tiled_filter.cu",
    ("im2col_gemm", "source"): "conv2d/im2col_gemm.cu",
    ("register_tiled", "source"): "conv2d/register_tiled.cu",
    ("register_tiled", "register_tiled_filter.source"): "conv2d/register_tiled_filter.cu",
    ("winograd", "source"): "conv2d/winograd.cu",
    ("winograd", "filter_source"): "conv2d/winograd_filter.cu",
    ("implicit_gemm", "source"): "conv2d/implicit_gemm.cu",
    ("implicit_gemm", "filter_source"): "conv2d/implicit_gemm_filter.cu",
    ("implicit_gemm_tf32", "gemm.source"): "conv2d/implicit_gemm_tensor.cu",
    ("implicit_gemm_tf32", "gemm.pack_source"): "conv2d/pack.cu",
    ("implicit_gemm_bf16", "gemm.source"): "conv2d/implicit_gemm_tensor.cu",
    ("implicit_gemm_wgmma", "warpgroup_source"): "conv2d/implicit_gemm_wgmma.cu",
    ("max", "source"): "pool2d/max.cu",
    ("avg", "source"): "pool2d/avg.cu",
    ("fused", "source"): "conv2d_relu_pool/fused.cu",
    ("fused", "filter_source"): "conv2d_relu_pool/fused_backward.cu",
    ("fused", "registers_source"): "conv2d_relu_pool/fused_backward_registers.cu",
    ("fused", "data_source"): "conv2d_relu_pool/fused_backward_data.cu",
}


def _plant(
    name: str, row: str, healthy: str, faulty: str, *, source: str = "source", file: str = ""
) -> Plant:
    operations = {"max": "max_pool2d", "avg": "avg_pool2d", "fused": "conv2d_relu_pool"}
    operation = operations.get(row, "conv2d")
    file = file or _FILES[row, source]
    return Plant(name, operation, row, source, file, healthy, faulty)


# Rounds a float to TF32's 10 or to bfloat16's 7 explicit bits, to nearest.
_ROUND = "__int_as_float((__float_as_int((float)({v})) + (1 << ({b} - 1))) & ~((1 << {b}) - 1))"


def _rounded(
    bits_dropped: int,
    a: str = "x[x_offset(shape, at.a, c, row, col)]",
    b: str = "w[w_offset(shape, at.b, c, r, s)]",
) -> str:
    a, b = (_ROUND.format(v=factor, b=bits_dropped) for factor in (a, b))
    return f"sum += (scalar){a} * (scalar){b};"


_NAIVE_PRODUCT = "sum += x[x_offset(shape, at.a, c, row, col)] * w[w_offset(shape, at.b, c, r, s)];"
_NAIVE_DATA_PRODUCT = (
    "sum += dy[y_offset(shape, at.a, k, p, q)] * w[w_offset(shape, k, at.b, r, s)];"
)
_NAIVE_FILTER_PRODUCT = (
    "sum += x[x_offset(shape, n, at.b, row, col)] * dy[y_offset(shape, n, at.a, p, q)];"
)

PLANTS = (
    # What is written, and where.
    _plant("no-op", "naive", "y[i] = sum;", ";"),
    _plant("one output unwritten", "naive", "y[i] = sum;", "if (i != 0) y[i] = sum;"),
    _plant("one gradient unwritten", "naive", "dx[i] = sum;", "if (i != 0) dx[i] = sum;"),
    _plant("adds to what was there", "naive", "y[i] = sum;", "y[i] += sum;"),
    _plant(
        "one thread too many",
        "naive",
        "const bool in_bias = k < shape.k;",
        "const bool in_bias = k <= shape.k;",
    ),
    _plant(
        "unguarded edge",
        "tiled",
        "const bool in_output = p < shape.p && q < shape.q;",
        "const bool in_output = true;",
    ),
    # How it is rounded.
    _plant("rounded to TF32", "naive", _NAIVE_PRODUCT, _rounded(13)),
    _plant("rounded to bfloat16", "naive", _NAIVE_PRODUCT, _rounded(16)),
    _plant("data gradient rounded to TF32", "naive", _NAIVE_DATA_PRODUCT, _rounded(
        13, "dy[y_offset(shape, at.a, k, p, q)]", "w[w_offset(shape, k, at.b, r, s)]")),
    _plant("filter gradient rounded to TF32", "naive", _NAIVE_FILTER_PRODUCT, _rounded(
        13, "x[x_offset(shape, n, at.b, row, col)]", "dy[y_offset(shape, n, at.a, p, q)]")),
    # Which filter tap.
    _plant(
        "flipped filter",
        "naive",
        "w[w_offset(shape, at.b, c, r, s)]",
        "w[w_offset(shape, at.b, c, shape.r - 1 - r, shape.s - 1 - s)]",
    ),
    _plant(
        "swapped R and S", "naive", "w[w_offset(shape, at.b, c, r, s)]",
        "w[((at.b * shape.c + c) * shape.s + s) * shape.r + r]",
    ),
    _plant(
        "gradient by the flipped filter",
        "naive",
        _NAIVE_DATA_PRODUCT,
        "sum += dy[y_offset(shape, at.a, k, p, q)] * "
        "w[w_offset(shape, k, at.b, shape.r - 1 - r, shape.s - 1 - s)];",
    ),
    _plant("last tap dropped", "tiled", "s < s_end; s++", "s < s_end - (s_end > 1); s++"),
    # Which element of the input.
    _plant(
        "left padding taken from the top", "naive", "- shape.pad_left + s", "- shape.pad_top + s",
        file="index.cuh",
    ),
    _plant(
        "dilation ignored", "naive", "+ r * shape.dilation_h;\n}", "+ r;\n}", file="index.cuh",
    ),
    _plant(
        "one stride for both axes", "naive", "return q * shape.stride_w",
        "return q * shape.stride_h",
        file="index.cuh",
    ),
    _plant(
        "edge one too far", "naive", "i >= 0 && i < extent;", "i >= 0 && i <= extent;",
        file="index.cuh",
    ),
    _plant(
        "stride not asked about", "naive",
        "return reach >= 0 && p * shape.stride_h == reach && p < shape.p ? p : -1;",
        "return reach >= 0 && p < shape.p ? p : -1;",
        file="index.cuh",
    ),
    _plant("bias of the first filter", "naive", "b ? b[at.b]", "b ? b[0]"),
    # How much is summed.
    _plant("last image left out", "naive", "n < shape.n; n++) { for (int p", "n < shape.n - 1; "
           "n++) { for (int p"),
    _plant("first plane only", "naive", "n < shape.n; n++) { const scalar* plane", "n < 1; n++) { "
           "const scalar* plane"),
    # Shared memory.
    _plant(
        "no barrier before the reads",
        "tiled",
        "__syncthreads();  // a thread reads what its neighbours loaded // Beyond",
        "//",
    ),
    _plant(
        "no barrier after the reads",
        "tiled",
        "sum += shared[i * halo_w + j] * taps[s]; } } __syncthreads();",
        "sum += shared[i * halo_w + j] * taps[s]; } }",
    ),
    _plant(
        "halo one row short", "tiled",
        "(taps_r - 1) * shape.dilation_h + 1; const int halo_w = (TILE_Q - 1) * shape.stride_w",
        "(taps_r - 1) * shape.dilation_h; const int halo_w = (TILE_Q - 1) * shape.stride_w",
    ),
    _plant("halo one column short", "tiled", "j < width; j +=", "j < width - 1; j +="),
    _plant(
        "no barrier before the sum of shares", "tiled", "__syncthreads(); // a tap's first share "
        "adds up the others", "", source="filter_source",
    ),
    _plant(
        "last share forgotten", "tiled", "other < shares; other++", "other < shares - 1; other++",
        source="filter_source",
    ),
    _plant(
        "tile not cleared beyond the edge", "tiled", "const bool in_plane = p < shape.p && q < "
        "shape.q;", "const bool in_plane = p * shape.q + q < shape.p * shape.q;",
        source="filter_source",
    ),
    _plant(
        "slices overlap", "tiled", "n = slice; n < shape.n; n += slices", "n = slice; n < shape.n; "
        "n += 1", source="filter_source",
    ),
    # Slices of the batch.
    _plant(
        "every slice reads the first images", "im2col_gemm",
        "x_offset(shape, first + at.b, at.a, 0, 0)", "x_offset(shape, at.b, at.a, 0, 0)",
    ),
    _plant(
        "every slice writes the first images", "im2col_gemm",
        "y[y_offset(shape, first + at.a, at.b, at.c, at.d)] =",
        "y[y_offset(shape, at.a, at.b, at.c, at.d)] =",
    ),
    # Register blocking.
    _plant(
        "zeros overwrite the window", "register_tiled",
        "__syncthreads(); // a zero must not overwrite what another thread loads", "",
    ),
    _plant(
        "strips read before they are loaded", "register_tiled",
        "__syncthreads(); // a thread reads what its neighbours loaded", "",
    ),
    _plant(
        "every warp takes the first filters", "register_tiled",
        "filters + threadIdx.z * (FILTERS / LANES)", "filters",
    ),
    _plant("every phase by the first taps", "register_tiled", "s * to.s_step", "s"),
    _plant(
        "positions past the tile", "register_tiled", "col + POSITIONS <= cols", "col < cols",
        source="register_tiled_filter.source",
    ),
    _plant(
        "only some shares added up", "register_tiled", "i < tiling.shares; i++",
        "i < (tiling.shares + 1) / 2; i++", source="register_tiled_filter.source",
    ),
    # Winograd.
    _plant(
        "products rounded to TF32", "winograd",
        "rows[i / LANES].at[i % LANES] * cols[j / LANES].at[j % LANES]",
        _ROUND.format(v="rows[i / LANES].at[i % LANES]", b=13)
        + " * " + _ROUND.format(v="cols[j / LANES].at[j % LANES]", b=13),
        file="conv2d/winograd.cuh",
    ),
    _plant("filters not turned round", "winograd", "turned ? 8 - tap : tap", "tap"),
    _plant("a sign of the transform", "winograd", "m[1] - m[2] - m[3]", "m[1] - m[2] + m[3]",
           file="conv2d/winograd.cuh"),
    _plant(
        "points read before they are stored", "winograd",
        "__syncthreads(); // a thread reads what 8 warps stored", "",
    ),
    _plant("half a tile past the edge", "winograd", "if (1 < q_end)", ""),
    _plant("gradient past the edge", "winograd", "if (tile.q + 1 < shape.q)", "",
           source="filter_source"),
    _plant("a neighbour of the row above", "winograd", "lane == 0 || tile.q == 0", "lane == 0",
           file="conv2d/winograd.cuh"),
    _plant("a pair that lies across words", "winograd", "in_pairs && left % 2 == 0", "in_pairs",
           file="conv2d/winograd.cuh"),
    # A product of gathered tiles.
    _plant(
        "no barrier before the product", "implicit_gemm",
        "__syncthreads(); walk.next(TILE_K);", "walk.next(TILE_K);",
    ),
    _plant("one buffer for two tiles", "implicit_gemm", "buffers[tile % 2]", "buffers[0]"),
    _plant(
        "every phase takes the first taps", "implicit_gemm", "(in_s.step - 1) * depth, count_s,",
        "0, count_s,", file="gather.cuh",
    ),
    _plant(
        "no carry to the next image", "implicit_gemm", "n += step_n + image_more;", "n += step_n;",
        source="filter_source",
    ),
    # Tensor cores and asynchronous copies.
    _plant("no wait for the copies", "implicit_gemm_tf32", "copy_wait<STAGES - 2>();", "",
           source="gemm.source"),
    _plant(
        "registers of a fragment exchanged", "implicit_gemm_tf32",
        "mma(sums[m][n], a[m], b[0], b[1]);", "mma(sums[m][n], a[m], b[1], b[0]);",
        source="gemm.source",
    ),
    _plant(
        "factors cut off instead of rounded", "implicit_gemm_tf32",
        "to_tf32(tile[row][to_col])", "__float_as_uint(tile[row][to_col]) & ~0x1fffu",
        source="gemm.pack_source",
    ),
    _plant(
        "vectors exchanged where read only", "implicit_gemm_bf16",
        "copy_async(&stage.b[line + b * LINES][at_vector]",
        "copy_async(&stage.b[line + b * LINES][vector]",
        source="gemm.source",
    ),
    _plant(
        "no carry to the next row of taps", "implicit_gemm_bf16", "i += next.a + more_i;",
        "i += next.a;", source="gemm.source",
    ),
    # Products of a warpgroup, which read shared memory themselves.
    *(
        _plant(name, "implicit_gemm_wgmma", healthy, faulty, source="warpgroup_source")
        for name, healthy, faulty in (
            ("groups of 8 positions apart", "x_pitch * 16, 8 * 16", "x_pitch * 16, 16 * 16"),
            ("vectors of filters without their pad", "W_PITCH * 16, 8 * 16", "TILE_M * 16, 8 * 16"),
            ("a tap a row too far", "now.r * tap_row", "(now.r + 1) * tap_row"),
            ("the tile before's places", "places[(turn + 1) % 2]", "places[turn % 2]"),
            ("filters not turned", "is_turned ? taps - 1 - tap : tap", "tap"),
            ("padding of an image's end read as pixels", "at.c < shape.h &&", ""),
            ("no wait for what is copied to products", "copy_wait<1>();", ""),
            ("no fence between copies and products", "async_proxy_fence();", ""),
            ("no barrier before products", "__syncthreads();", ""),
            ("no fence before the sums", "warpgroup_fence();", ""),
            ("no wait for the product before the last", "multiply_wait<1>();", ""),
            ("filters written under a product", "shared + step.w_stage * W_STAGE", "shared + (step.w_stage + w_stages - 1) % w_stages * W_STAGE"),
            ("pixels written under a product", "step.x_stage * x_stage +", ""),
            ("sums read before they are there", "multiply_wait(sums);", ""),
        )
    ),
    # Pooling.
    _plant("ties to the last", "max", "value > best", "value >= best"),
    _plant("NaN passed over", "max", "value > best || first_nan", "value > best"),
    _plant("padding counts as zero", "max", "scalar best = plane[best_at];",
           "scalar best = top < 0 ? max(plane[best_at], scalar(0)) : plane[best_at];"),
    _plant("overlapping windows overwrite", "max", "sum += dy[window];", "sum = dy[window];"),
    _plant("one window too few", "max", "min(row / shape.stride_h + 1, shape.p)",
           "min(row / shape.stride_h + 1, shape.p - 1)"),
    _plant("padding always counted", "avg", "shape.include_pad ?", "true ?"),
    _plant("padding never counted", "avg", "shape.include_pad ?", "false ?"),
    # The fused block.
    _plant("fused ties to the last", "fused", "!(value <= best)", "!(value < best)",
           file="conv2d_relu_pool/fused_forward.cuh"),
    _plant("ReLU open at zero", "fused", "best <= scalar(0);", "best < scalar(0);",
           file="conv2d_relu_pool/fused_forward.cuh"),
    _plant("fused no barrier before the reads", "fused",
           "__syncthreads();  // a thread reads what its neighbours loaded", ""),
    _plant("fused no barrier before the outputs", "fused",
           "__syncthreads();  // the next channels, or the outputs, overwrite what others still read",
           ""),
    _plant("gradient to the place across the diagonal", "fused",
           "place / cut.layer.pool_s * cut.layer.conv.stride_h + down",
           "place % cut.layer.pool_s * cut.layer.conv.stride_h + down", source="data_source",
           file="conv2d_relu_pool/fused_backward_data.cuh"),
    _plant("no barrier between the rounds", "fused",
           "__syncthreads();  // the next round adds to what this one wrote", "",
           source="data_source", file="conv2d_relu_pool/fused_backward_data.cuh"),
    _plant("filter gradient one window on", "fused", "window % cut.layer.pooled_q",
           "(window + 1) % cut.layer.pooled_q", source="filter_source",
           file="conv2d_relu_pool/fused_backward.cuh"),
    _plant("one place for two", "fused", "add_window<BIT / 2, PLACE + BIT>",
           "add_window<BIT / 2, PLACE>", source="registers_source"),
    _plant("no share but the first", "fused", "other < SHARES; other++) {",
           "other < 1; other++) {", source="registers_source"),
    _plant("sums of four filters over those before", "fused",
           "__syncthreads();  // the next filters' sums overwrite what others still read", "",
           source="registers_source"),
)  # fmt: skip
