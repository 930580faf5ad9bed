"""The command line: it parses and delegates, nothing else."""
