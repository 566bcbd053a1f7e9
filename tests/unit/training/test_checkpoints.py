"""Resumable state on disk."""

from __future__ import annotations

import logging
import pickle

import pytest
import torch

from asr_distill.training.checkpoints import Checkpoints


def state(value):
    return {"weights": torch.full((50,), float(value)), "position": {"curve": [{"loss": 1.5, "step": value}]}}


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "state", fingerprint="this")


def files(checkpoints):
    return sorted(checkpoints.folder.iterdir())


def test_the_newest_comes_back_as_it_was(checkpoints):
    for step in (5, 10, 100_000_000):
        checkpoints.save(state(step), step=step)
    found = checkpoints.load()
    assert found["step"] == 100_000_000
    assert torch.equal(found["weights"], state(100_000_000)["weights"])
    assert found["position"] == state(100_000_000)["position"]


def test_nothing_saved_nothing_found(checkpoints):
    assert checkpoints.load() is None


def test_only_two_are_kept_and_no_temporary_files(checkpoints):
    for step in (5, 10, 15, 20):
        checkpoints.save(state(step), step=step)
    kept = files(checkpoints)
    assert len(kept) == 2
    assert all(name in path.name for name, path in zip(("15", "20"), kept, strict=True))


@pytest.mark.parametrize("size", [0, 1, 3, 10, 100, 0.5, 0.99, -1])
def test_a_truncated_file_falls_back_to_the_one_before(checkpoints, caplog, size):
    for step in (5, 10):
        checkpoints.save(state(step), step=step)
    newest = files(checkpoints)[-1]
    content = newest.read_bytes()
    newest.write_bytes(content[: int(size * len(content)) if isinstance(size, float) else size])
    with caplog.at_level(logging.WARNING):
        found = checkpoints.load()
    assert found["step"] == 5
    assert "is not readable" in caplog.text
    assert str(newest) in caplog.text


def test_all_truncated_is_a_new_start(checkpoints):
    for step in (5, 10):
        checkpoints.save(state(step), step=step)
    for path in files(checkpoints):
        path.write_bytes(path.read_bytes()[:1000])
    assert checkpoints.load() is None


class Payload:
    """Runs code when it is unpickled the naive way."""

    executed = False

    def __reduce__(self):
        return setattr, (Payload, "executed", True)


@pytest.mark.parametrize(
    "write", [torch.save, lambda payload, path: path.write_bytes(pickle.dumps(payload, protocol=2))]
)
def test_code_in_a_checkpoint_is_never_run(checkpoints, write):
    checkpoints.save(state(5), step=5)
    path = files(checkpoints)[0]
    write(
        {"fingerprint": "this", "step": 6, "payload": Payload()},
        path.with_name(path.name.replace("step00000005", "step00000006")),
    )
    assert checkpoints.load()["step"] == 5
    assert not Payload.executed


def test_a_failed_save_leaves_what_was_there(checkpoints, monkeypatch):
    checkpoints.save(state(5), step=5)

    def full_disk(content, path):
        path.write_bytes(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        checkpoints.save(state(10), step=10)
    assert len(files(checkpoints)) == 1
    assert checkpoints.load()["step"] == 5


def test_those_of_another_configuration_are_ignored_and_said_to_be(checkpoints, caplog):
    other = Checkpoints(checkpoints.folder, fingerprint="other")
    for step in (6, 7):
        other.save(state(step), step=step)
    assert checkpoints.load() is None
    (line,) = caplog.messages
    expected = f"{other.path(7)} is of another model, other tokens or other settings; training starts anew"
    assert line == expected
    checkpoints.save(state(9), step=9)
    assert checkpoints.load()["step"] == 9
    with pytest.raises(ValueError, match=r"step00000007-other\.pt is of another model, other tokens or other settings"):
        checkpoints.read(other.path(7))


def test_what_a_killed_attempt_half_wrote_is_removed(checkpoints):
    checkpoints.save(state(5), step=5)
    half = checkpoints.folder / f".{checkpoints.path(10).name}.4711"
    half.write_bytes(b"half of it")
    checkpoints.save(state(15), step=15)
    assert files(checkpoints) == [checkpoints.path(5), checkpoints.path(15)]


def test_those_of_another_configuration_do_not_push_out_new_ones(checkpoints):
    other = Checkpoints(checkpoints.folder, fingerprint="other")
    for step in (1000, 2000):
        other.save(state(step), step=step)
    for step in (5, 10):
        checkpoints.save(state(step), step=step)
    assert checkpoints.load()["step"] == 10


def test_remove_leaves_nothing(checkpoints):
    checkpoints.remove()
    checkpoints.save(state(5), step=5)
    checkpoints.remove()
    assert not checkpoints.folder.exists()
