"""What the main process does for all: all get its result, or its error, and none waits for one that has stopped."""

from collections.abc import Callable
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from regard.errors import RegardError

T = TypeVar("T")


def on_main(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """What `work` gives in the main process, on all processes. RegardError, on all, where it raises one there."""
    if accelerator.num_processes == 1:
        return work()
    found: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            found[0] = work()
        except RegardError as error:
            found[1] = str(error)
    broadcast_object_list(found)
    if found[1] is not None:
        raise RegardError(found[1])
    result: T = found[0]
    return result
