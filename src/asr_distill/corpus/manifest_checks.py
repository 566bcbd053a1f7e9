"""Checks entries of Lhotse manifests, which Lhotse itself takes as they come, before anything relies on them."""

from __future__ import annotations

from typing import Annotated

from lhotse import Recording, SupervisionSegment
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

Text = Annotated[str, Field(min_length=1)]


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, from_attributes=True)


class _Source(_Entry):
    type: Text
    source: str
    channels: list[int]


class _Recording(_Entry):
    id: Text
    sampling_rate: Annotated[int, Field(gt=0)]
    num_samples: Annotated[int, Field(ge=0)]
    duration: Annotated[FiniteFloat, Field(ge=0)]
    sources: list[_Source]


class _Segment(_Entry):
    id: Text
    recording_id: Text
    start: FiniteFloat
    duration: FiniteFloat
    text: str | None
    speaker: str | None


def check_entry(entry: Recording | SupervisionSegment) -> None:
    """Check that the fields that are relied on are there and of their kind.

    Raises:
        ValueError: one line naming the entry and the field.
    """
    kind = _Recording if isinstance(entry, Recording) else _Segment
    try:
        kind.model_validate(entry)
    except ValidationError as invalid:
        first = invalid.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise ValueError(f"entry {entry.id!r}: {field}: {first['msg']}, found {first.get('input')!r}") from None
    if isinstance(entry, Recording) and abs(entry.duration - entry.num_samples / entry.sampling_rate) > 1:
        raise ValueError(
            f"entry {entry.id!r}: duration: {entry.duration} s, but {entry.num_samples} samples at "
            f"{entry.sampling_rate} Hz are {entry.num_samples / entry.sampling_rate:.3f} s"
        )
