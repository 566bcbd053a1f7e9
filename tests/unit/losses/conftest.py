"""One thread for all tests of losses."""

import torch

torch.set_num_threads(1)
