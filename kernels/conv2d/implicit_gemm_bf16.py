"""implicit_gemm on tensor cores with factors in bfloat16 and sums in float32."""

from kernels.conv2d.bias import backward_bias
from kernels.conv2d.implicit_gemm_tensor import TensorGemm
from kernels.conv2d.slices import slices_source

__all__ = [
    "backward_bias", "backward_data", "backward_filter", "forward", "pack_source",
    "slices_source", "source", "workspace_bytes",
]  # fmt: skip

gemm = TensorGemm("implicit_gemm_bf16", "bfloat16", is_bf16=True)
source = gemm.source
pack_source = gemm.pack_source

forward = gemm.forward
backward_data = gemm.backward_data
backward_filter = gemm.backward_filter
workspace_bytes = gemm.workspace_bytes
refuses = gemm.refuses
