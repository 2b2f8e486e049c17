"""The command table: one record per command beside its handler, one module per family."""
