"""Training: data sets, networks, the loop, tracking. Needs the ``train`` extra."""

from cascade.privacy import report_nothing

report_nothing()
