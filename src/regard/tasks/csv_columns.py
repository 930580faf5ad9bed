"""The columns of a CSV file of images."""

from regard.data import CsvOptions
from regard.files import expanded
from regard.recipes import DataSection, WholeImagesSection


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
