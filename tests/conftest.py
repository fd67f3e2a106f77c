"""Small tensors are many times slower on several threads, the more so beside other processes."""

import os

# Read when torch and scipy load their BLAS; numpy is already in, by way of zarr's plugin.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import torch  # noqa: E402

torch.set_num_threads(1)
