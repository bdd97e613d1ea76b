"""Training: data sets, networks, the loop, tracking. Needs the ``train`` extra."""
