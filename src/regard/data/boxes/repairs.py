"""`regard.data.repairs` under the name that it had when boxes alone were annotated."""

from regard.data.repairs import OnBadAnnotation as OnBadAnnotation
from regard.data.repairs import Repairs as Repairs
from regard.data.repairs import sentences as sentences
