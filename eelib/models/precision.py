"""Whether this machine computes in bfloat16 faster than in float32."""

import torch


def fast_bf16() -> bool:
    """True on a GPU that supports bfloat16, and on a CPU for which oneDNN has bfloat16 kernels (AVX-512 and later).

    Elsewhere torch emulates it: a product takes five to ten times as long as in float32.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()
