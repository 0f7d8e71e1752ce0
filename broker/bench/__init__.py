"""The program's own load benchmark: a generator, the accounting of processes, a service to load."""
