"""Where text without speech comes from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from asr_distill.experiment.base import PositiveInt, Record


class GrammarText(Record):
    """Sentences of the embedded corpus' grammar, without end."""

    source: Literal["grammar"]
    lines: PositiveInt
    seed: int = 1
    domains: tuple[str, ...] = ("commands", "stories", "news")


class FileText(Record):
    """A plain text file below the folder of the real corpora: UTF-8, a sentence a line, .gz or not."""

    source: Literal["file"]
    path: str


class WordNetText(Record):
    """The example sentences of Princeton's WordNet, from the files of its database."""

    source: Literal["wordnet"]
    path: str = "wordnet"
    """Folder of data.noun, data.verb, data.adj and data.adv below that of the real corpora, or its absolute path, such
    as /usr/share/wordnet, where Debian's package wordnet-base puts them."""


AnyText = Annotated[GrammarText | FileText | WordNetText, Field(discriminator="source")]
FoundText = Annotated[FileText | WordNetText, Field(discriminator="source")]
