"""Which recipe suits a data set, a machine and a time.

facts.py    a data address -> what its images and labels are like
means.py    what is installed and what the machine can do
pretrained_runs.py   one's own pre-trainings: which saw these images, and how good their features are
rules.py    all of these and minutes -> candidates, with reasons; each rule stands beside its measurement
race.py     several candidates -> the one that does best on images held out of training, which goes on
"""

from regard.choose.facts import Facts, facts_of
from regard.choose.means import Means, means_here
from regard.choose.pretrained_runs import PretrainedRun, pretrained_runs
from regard.choose.race import Entrant, Race, expected, race_told, selection_of
from regard.choose.rules import RACE_FRACTION, Candidate, Choice, choose, require_minutes

__all__ = [
    "RACE_FRACTION",
    "Candidate",
    "Choice",
    "Entrant",
    "Facts",
    "Means",
    "PretrainedRun",
    "Race",
    "choose",
    "expected",
    "facts_of",
    "means_here",
    "pretrained_runs",
    "race_told",
    "require_minutes",
    "selection_of",
]
