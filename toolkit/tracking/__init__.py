"""MLflow: runs, metrics and packages as models; only this folder imports it."""
