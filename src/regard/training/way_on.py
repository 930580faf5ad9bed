"""What stops a training in its middle and can be mended: the error says with which command the training goes on."""

from collections.abc import Iterator
from contextlib import contextmanager

from regard.data.images.files import BadImage
from regard.errors import RegardError, is_out_of_memory, one_line
from regard.training.session import Session


@contextmanager
def with_a_way_on(session: Session) -> Iterator[None]:
    """Within, an image that cannot be decoded, and memory that runs out, become errors that end with what helps."""
    try:
        yield
    except BadImage as error:
        again = f"`regard train --resume {session.run.path} --set data.on_bad_image=skip`"
        raise BadImage(error.path, f"{error.reason}; mend the file, or go on without such images: {again}") from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        options = session.recipe.train
        raise RegardError(
            f"step {session.progress.step + 1}: the memory of {session.accelerator.device} is too small for batches of "
            f"{options.batch_size // options.accumulate} ({one_line(error, 200)}); "
            f"--set train.accumulate={2 * options.accumulate} computes the same step in smaller parts, "
            "--set train.gradient_checkpointing=true keeps less of each"
        ) from error
