"""Options that several commands share.

Annotations are read when the program runs, so this module does without the future import.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

DEFAULT_ROOT = "./lakehouse"

Format = Literal["table", "json", "csv", "parquet"]


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """What every command takes."""

    root: Annotated[str, Parameter(env_var="LAKE_ROOT")] = DEFAULT_ROOT
    "The lake: a folder or s3://bucket/prefix."

    verbose: bool = False
    "Log to stderr what happens in detail."

    debug: Annotated[bool, Parameter(env_var="LAKE_DEBUG")] = False
    "Show the traceback of an error."


@Parameter(name="*")
@dataclass(frozen=True)
class Elsewhere:
    """What a command takes that finds its lake in a lock."""

    root: Annotated[str | None, Parameter(env_var="LAKE_ROOT")] = None
    "The lake, or a copy of it; where the lock says when left out."

    verbose: bool = False
    "Log to stderr what happens in detail."

    debug: Annotated[bool, Parameter(env_var="LAKE_DEBUG")] = False
    "Show the traceback of an error."


@Parameter(name="*")
@dataclass(frozen=True)
class Output:
    """How data is printed."""

    format: Format = "table"
    "Form of the data on stdout."

    output: str | None = None
    "Write the data to this file instead of stdout."


@Parameter(name="*")
@dataclass(frozen=True)
class Replaying:
    """Whether a replay exchange stands in for the venue."""

    replay: str | None = None
    (
        "Ask a replay exchange instead of the venue: the folder of a TAPE, `generated` for the "
        "built-in tape, or the URL of one that runs already."
    )

    replay_now: str | None = None
    "Set the clock of the replay exchange; without it, it stands a minute after the last close."


COMMON = Common()
ELSEWHERE = Elsewhere()
OUTPUT = Output()
REPLAYING = Replaying()

Many = Parameter(consume_multiple=True)
