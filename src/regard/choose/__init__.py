"""Which recipe suits a data set, a machine and a time.

facts.py    a data address -> what its images and labels are like
means.py    what is installed and what the machine can do
rules.py    facts, means and minutes -> candidates, with reasons; each rule stands beside its measurement
race.py     several candidates -> the one that does best on images held out of training, which goes on
"""

from regard.choose.facts import Facts, facts_of
from regard.choose.means import Means, means_here
from regard.choose.race import Entrant, Race, expected, race_told, selection_of
from regard.choose.rules import RACE_FRACTION, Candidate, Choice, choose, require_minutes

__all__ = [
    "RACE_FRACTION",
    "Candidate",
    "Choice",
    "Entrant",
    "Facts",
    "Means",
    "Race",
    "choose",
    "expected",
    "facts_of",
    "means_here",
    "race_told",
    "require_minutes",
    "selection_of",
]
