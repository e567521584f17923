"""The console: a live page for the operator, in a process and on a port of its own, fed by the admin API alone."""
