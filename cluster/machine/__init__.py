"""The replicated state: what a log entry does. `machine.Machine.apply` is the only way in."""
