"""What all records are made of: immutable pydantic models that refuse unknown keys and name the nearest right one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Use = Literal["labelled", "unlabelled", "dev", "test"]
PositiveInt = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Condition = Name
"""A kind of speech that claims are about; the scale says which test part has it."""
PaperColumn = Name
"""Heading of a column in a paper's tables."""


def nearest(word: object, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known word nearest to a misspelt one, else the list of known words."""
    known = list(known)
    match = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else f"; known: {', '.join(sorted(known)) or 'none'}"


def check_known(word: object, known: Iterable[str], where: str, what: str) -> None:
    """Raise ValueError, naming the nearest right word, unless `word` is among those known."""
    if word not in known:
        raise ValueError(f"{where}: '{word}' is no {what}{nearest(word, known)}")


@contextmanager
def located(key: str) -> Iterator[None]:
    """Say of a user's mistake at which key of the configuration it is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def unset(value: object) -> bool:
    """Return whether an optional key was left out, so that records without it are written as before there was one."""
    return value is None


class Record(BaseModel):
    """Base of all records: immutable, and an unknown key is an error that names the nearest right one."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(f"unknown key '{key}'{nearest(key, cls.model_fields)}")
        return data
