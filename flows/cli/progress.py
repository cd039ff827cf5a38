"""How a run goes, on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows.cli.say import say
from flows.work import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from rich.progress import TaskID

_EVERY_SECONDS = 3.0
_SHOWN_STREAMS = 12
_NOTHING = "nothing to ask: all that was asked for is known already"


@contextmanager
def shown_progress(what: str) -> Iterator[Progress]:
    """Yield what draws the progress of a run called ``what``."""
    if sys.stderr.isatty():
        with Bars() as bars:
            yield bars
    else:
        lines = Lines(what)
        yield lines
        lines.end()


@dataclass
class _Count:
    """Pages and rows of one stream so far."""

    planned: int = 0
    pages: int = 0
    rows: int = 0


class Lines(Progress):
    """A line at the start, one every few seconds, one at the end; waits and notes at once."""

    def __init__(
        self,
        what: str,
        *,
        write: Callable[[str], None] = say,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._write = write
        self._monotonic = monotonic
        self._counts: dict[str, _Count] = {}
        self._began = self._told = monotonic()
        self._announced = False
        self._tell("starting")

    def plan(self, stream: str, pages: int) -> None:
        """Expect so many pages of a stream."""
        if not self._counts:
            self._began = self._monotonic()
        self._of(stream).planned += pages

    def advance(self, stream: str, pages: int, rows: int) -> None:
        """Count pages; ``rows`` is what the stream has brought so far."""
        self._announce()
        count = self._of(stream)
        count.pages += pages
        count.rows = rows
        if self._monotonic() - self._told >= _EVERY_SECONDS:
            self._tell(self._so_far())

    def waiting(self, reason: str, seconds: float) -> None:
        """Say what the run waits for."""
        self._announce()
        self._tell(f"waiting {seconds:.1f} s: {reason}")

    def note(self, text: str) -> None:
        """Say something that a person should read."""
        self._tell(text)

    def end(self) -> None:
        """Say how it ended, or that there was nothing to ask."""
        if self._counts:
            self._tell(self._so_far(ended=True))
        else:
            self._tell(_NOTHING)

    def _of(self, stream: str) -> _Count:
        return self._counts.setdefault(stream, _Count())

    def _announce(self) -> None:
        if not self._announced and self._counts:
            self._announced = True
            self._tell(f"{len(self._counts)} streams, {self._sum('planned')} pages")

    def _sum(self, name: str) -> int:
        return sum(getattr(count, name) for count in self._counts.values())

    def _so_far(self, *, ended: bool = False) -> str:
        pages, planned, rows = (self._sum(name) for name in ("pages", "planned", "rows"))
        seconds = max(self._monotonic() - self._began, 1e-3)
        line = f"{pages}/{planned} pages, {rows:,} rows, {rows / seconds:,.0f} rows/s"
        if ended:
            return f"{line}, {seconds:.1f} s"
        left = (planned - pages) * seconds / pages if pages else 0.0
        return f"{line}, about {left:.0f} s to go"

    def _tell(self, text: str) -> None:
        self._told = self._monotonic()
        self._write(f"{self._what}: {text}")


class Bars(Progress):
    """One bar per stream and one for all; a context manager that draws while it is open."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Drawing

        self._drawing = Drawing(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("pages {task.fields[rows]:>9,} rows", markup=False),
            TextColumn("{task.fields[rate]:>6,.0f}/s", markup=False),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            refresh_per_second=8,
        )
        self._tasks: dict[str, TaskID] = {}
        self._rows: dict[str, int] = {}
        self._waits = ""
        self._began = time.monotonic()
        self._whole = self._add("all streams", total=None)

    def __enter__(self) -> Self:
        self._drawing.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._tasks and kind is None:
            self._drawing.update(self._whole, visible=False)
            self.note(_NOTHING)
        self._drawing.stop()

    def plan(self, stream: str, pages: int) -> None:
        """Expect so many pages of a stream."""
        if not self._tasks:
            self._began = time.monotonic()
        if stream not in self._tasks:
            visible = len(self._tasks) < _SHOWN_STREAMS
            self._tasks[stream] = self._add(stream, total=0, visible=visible)
        for task in (self._tasks[stream], self._whole):
            self._drawing.update(task, total=(self._of(task).total or 0) + pages)

    def advance(self, stream: str, pages: int, rows: int) -> None:
        """Count pages; ``rows`` is what the stream has brought so far."""
        self._rows[stream] = rows
        self._waits = ""
        seconds = max(time.monotonic() - self._began, 1e-3)
        if stream in self._tasks:
            whole = sum(self._rows.values())
            self._count(self._tasks[stream], pages, rows, rows / seconds)
            self._count(self._whole, pages, whole, whole / seconds)
            self._make_room(stream)

    def waiting(self, reason: str, seconds: float) -> None:
        """Say what the run waits for."""
        if reason != self._waits:
            self._waits = reason
            self.note(f"waiting {seconds:.1f} s: {reason}")

    def note(self, text: str) -> None:
        """Say something that a person should read, above the bars."""
        self._drawing.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _add(self, description: str, **facts: Any) -> TaskID:
        return self._drawing.add_task(description, rows=0, rate=0.0, **facts)

    def _of(self, task: TaskID) -> Any:
        return self._drawing.tasks[self._drawing.task_ids.index(task)]

    def _count(self, task: TaskID, pages: int, rows: int, rate: float) -> None:
        self._drawing.update(task, advance=pages, rows=rows, rate=rate)

    def _make_room(self, stream: str) -> None:
        """Where there are too many streams to show, let the next take a finished one's place."""
        task = self._of(self._tasks[stream])
        if len(self._tasks) <= _SHOWN_STREAMS:
            return
        self._drawing.update(task.id, visible=not task.finished)
        if task.finished:
            hidden = (t for t in self._drawing.tasks if not t.visible and not t.finished)
            following = next(hidden, None)
            if following is not None:
                self._drawing.update(following.id, visible=True)
