"""Shows tables while they grow."""

from __future__ import annotations

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable

from benchmark import tables
from benchmark.driver import Result

WIDE = 160  # columns, where the output is no terminal


def console() -> Console:
    found = Console()
    return found if found.is_terminal else Console(width=WIDE)


class Screen:
    """The table of the kind at work, with a bar below; finished tables stay above. `with` opens and
    closes it."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self.rows: list[Result] = []
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self._task = self._bar.add_task("", total=total)
        self._live = Live(self._bar, console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        self._finish()

    def begin(self, kind: str, what: str) -> None:
        """Says what is being measured now."""
        if self.rows and self.rows[0].kind != kind:
            self._finish()
        self._bar.update(self._task, description=f"{kind}: {what}")
        self._show()

    def add(self, *rows: Result) -> None:
        self.rows += rows
        self._bar.advance(self._task)
        self._show()

    def _show(self) -> None:
        grown = [rich(tables.table(self.rows[0].kind, self.rows))] if self.rows else []
        # Drawn now and then only: a thread that redraws would disturb what is measured.
        self._live.update(Group(*grown, self._bar), refresh=self.console.is_terminal)

    def _finish(self) -> None:
        if self.rows:
            self.console.print(rich(tables.table(self.rows[0].kind, self.rows)))
        self.rows = []


def rich(table: tables.Table) -> RichTable:
    shown = RichTable(title=table.title, title_justify="left", title_style="bold", header_style="bold")
    for number, name in enumerate(table.header):
        last = number == len(table.header) - 1
        shown.add_column(name, justify="left" if number == 0 or last else "right", style="yellow" if last else None)
    for row in table.rows:
        shown.add_row(*row)
    return shown
