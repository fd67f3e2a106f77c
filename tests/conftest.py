"""Small tensors are many times slower on several threads, the more so beside other processes."""

import torch

torch.set_num_threads(1)
