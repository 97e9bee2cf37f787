"""What preference pairs are like: measures, verdicts against limits, a report that shows foreign text safely."""

from coala_core.quality.escaping import inert as inert
from coala_core.quality.markdown import quality_markdown as quality_markdown
from coala_core.quality.measure import Quality as Quality
from coala_core.quality.measure import assess as assess
