"""An exported file as a predictor: the classes of a run, with an engine in the place of the model."""

from pathlib import Path

from regard.data import DetectionPreprocessing, Preprocessing
from regard.errors import RegardError, one_line
from regard.export.contract import CLASSIFICATION
from regard.export.engines import SUFFIXES, EngineModel, Opened, open_file
from regard.tasks import PREDICTORS, Classifier, Detector
from regard.weights.described import placed, preprocessing_table


def is_exported(name: object) -> bool:
    """Whether a name is a file of one of the kinds that `regard export` writes."""
    path = Path(str(name))
    return path.suffix.lower() in (*SUFFIXES, ".pt2") and path.is_file()


def load_exported(file: Path, *, threads: int = 0) -> Classifier | Detector:
    """The predictor of a file, on the CPU. RegardError for anything that `regard export` does not make."""
    return predictor_of(open_file(file, threads=threads), str(file))


def predictor_of(opened: Opened, where: str) -> Classifier | Detector:
    engine, contract = opened
    kind = Preprocessing if contract["task"] == CLASSIFICATION else DetectionPreprocessing
    try:
        preprocessing = kind.from_dict(preprocessing_table(contract, where))
        model = EngineModel(engine, contract, preprocessing)
        predictor = PREDICTORS[contract["task"]].from_metadata(model, contract, where)
    except RegardError as error:
        raise placed(error, where) from None
    except KeyError as error:
        raise RegardError(f"{where}: its metadata lack {error}") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise RegardError(f"{where}: its metadata are not those of an export: {one_line(error)}") from None
    assert isinstance(predictor, Classifier | Detector)
    predictor.source = where
    return predictor
