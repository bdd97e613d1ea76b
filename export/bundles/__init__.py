"""Writing bundles, and checking what was written."""
