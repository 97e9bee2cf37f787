"""Flows: the pipeline as Prefect runs it, and the command line."""
