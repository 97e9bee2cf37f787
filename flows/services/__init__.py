"""PostgreSQL, Prefect, MLflow and a worker as supervised processes of this machine: `coala services`."""
