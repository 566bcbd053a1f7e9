"""What every measuring process needs; imported once, before they fork, and nothing may compute here."""

import gc

import torch._dynamo  # noqa: F401 - optimisers import it on their first step, which takes a second
import torchaudio  # noqa: F401

import asr_distill.training.objective  # noqa: F401

gc.collect()
gc.freeze()  # else every process would look through all of these modules again, and copy their memory
