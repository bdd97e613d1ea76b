"""Batch work: from inputs to outputs, by this process or by a cluster."""
