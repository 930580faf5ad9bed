"""Images without boxes, opened as a recipe says; and the columns of a CSV file of them."""

from pathlib import Path

from regard.data import CsvOptions, ImageClasses, open_images
from regard.files import expanded
from regard.recipes import DataSection, WholeImagesSection


def open_whole_images(data: WholeImagesSection, *, channels: int, unlabelled: bool = False) -> ImageClasses:
    """`open_images` with all that a recipe says of them. RegardError as there."""
    return open_images(
        data.address,
        channels=channels,
        val_fraction=data.val_fraction,
        split_seed=data.split_seed,
        on_bad_image=data.on_bad_image,
        root=None if data.root is None else Path(data.root),
        max_megapixels=data.max_megapixels,
        leave_out=data.leave_out,
        on_bad_annotation=data.on_bad_annotation,
        csv=csv_options(data),
        unlabelled=unlabelled,
    )


def csv_options(options: DataSection) -> CsvOptions | None:
    """The columns that a recipe names."""
    if not isinstance(options, WholeImagesSection):
        return None
    return CsvOptions(
        options.file_column,
        options.label_column,
        options.part_column,
        options.label_separator,
        options.multi_label,
        None if options.image_folder is None else expanded(options.image_folder),
    )
