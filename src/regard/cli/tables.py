"""Tables on the screen."""

from rich.console import Console
from rich.table import Column, Table


def right(name: str) -> Column:
    """A column of numbers."""
    return Column(name, justify="right")


def show(table: Table) -> None:
    """Prints a table; names of files and classes stand as they are, and long ones are folded, not cut."""
    for column in table.columns:
        column.overflow = "fold"
    Console(markup=False, emoji=False, highlight=False).print(table)
