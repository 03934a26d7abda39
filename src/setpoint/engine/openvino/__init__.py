"""The executor over OpenVINO's PagedAttention kernels, and what it needs of the runtime."""
