"""A table as lines of text: aligned where it fits, else a few lines a row. No colours, so that a pipe takes it too."""

import shutil
import sys
import textwrap
from collections.abc import Sequence


def table_text(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, named: int, width: int | None
) -> list[str]:
    """The lines of a table.

    Args:
        head: the columns' names.
        rows: a text a column each; columns that are empty in all rows are left out.
        named: how many columns at the left name a row; they are aligned to the left, the others to the right.
        width: characters that fit on a line; None: any number. In fewer than the table needs each row is a paragraph
            of its name and the values that it has.
    """
    used = [column for column in range(len(head)) if column < named or any(row[column] for row in rows)]
    cells = [[row[column] for column in used] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if width is None or sum(widths) + 2 * (len(widths) - 1) <= width:
        return [
            "  ".join(
                cell.ljust(wide) if number < named else cell.rjust(wide)
                for number, (cell, wide) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
    lines = []
    for row in cells[1:]:
        values = [
            f"{name} {value}" for name, value in zip(cells[0][named:], row[named:], strict=True) if value
        ]
        for text, indent in (("  ".join(filter(None, row[:named])), ""), (", ".join(values), "  ")):
            lines += textwrap.wrap(
                text, max(width, 20), initial_indent=indent, subsequent_indent=indent + "  "
            )
    return lines


def terminal_width() -> int | None:
    """Characters on a line of the terminal that standard output is; None where it is a pipe or a file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
