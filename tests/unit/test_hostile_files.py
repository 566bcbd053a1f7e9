"""Files that would run code where they were unpickled: every loader refuses them in one line, and nothing runs."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from asr_distill.models.best_rq_storage import load_encoder
from asr_distill.models.storage import load_model
from asr_distill.models.tensor_files import read_tensors
from asr_distill.reporting.inputs import read_arrays
from asr_distill.text.soft_labels import SoftLabels
from asr_distill.text.tokenizer import Tokenizer


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def pickled(path, payload):
    path.write_bytes(pickle.dumps(payload))


def torch_saved(path, payload):
    torch.save({"fingerprint": "x", "step": 1, "weights": payload}, path)


def array(path, payload):
    with path.open("wb") as file:
        np.savez(file, lattice=np.array([payload], dtype=object))


def zipped(path, payload):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(payload))
        archive.writestr("archive/version", "3\n")


WRITERS = (pickled, torch_saved, array, zipped)
LOADERS = {
    "transducer": lambda path: load_model(path, tokenizer="x", device=torch.device("cpu")),
    "encoder": lambda path: load_encoder(path, size=None, mel_bins=80),
    "tensors": lambda path: read_tensors(path, kind="transducer", tokenizer=None),
    "soft labels": lambda path: SoftLabels.load(path, tokenizer="x"),
    "tokenizer": Tokenizer.load,
    "arrays": lambda path: read_arrays(path, ("lattice",), again="draw it again"),
}


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
@pytest.mark.parametrize("loader", LOADERS)
def test_no_loader_runs_what_a_file_says(tmp_path, loader, write):
    path, mark = tmp_path / "file", tmp_path / "ran"
    write(path, Payload(mark))
    with pytest.raises(ValueError, match=r"\S") as error:
        LOADERS[loader](path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert not mark.exists()


def test_the_payload_would_work(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))  # noqa: S301 - the point
    assert (tmp_path / "ran").is_dir()
