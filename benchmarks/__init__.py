"""Speed and memory, measured side by side."""

from cascade.privacy import report_nothing

report_nothing()
