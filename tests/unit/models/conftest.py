"""One thread for all tests of models."""

import torch

torch.set_num_threads(1)
