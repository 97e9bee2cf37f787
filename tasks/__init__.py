"""Prefect shells around the core: one task per stage, and the tracking seam."""
