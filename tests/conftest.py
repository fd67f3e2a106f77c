"""Small tensors are many times slower on several threads, the more so beside other processes."""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy and torch are imported

import sys; open("/tmp/early","w").write(repr([m for m in ("numpy","torch","scipy","xarray","hypothesis") if m in sys.modules]))
import torch  # noqa: E402

torch.set_num_threads(1)
