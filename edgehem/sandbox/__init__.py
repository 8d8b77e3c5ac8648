"""What runs in disposable child processes. Thin on purpose: nothing here imports the rest of edgehem."""
