"""The service: models in memory and the batches that they run."""
