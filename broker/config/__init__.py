"""The typed configuration: model, loading with positions, checking.

    load(path, flags) -> Config       a file, with what the command line adds; path None: that alone
    reload(config) -> Config          the same again, from the files as they are now

Both raise `broker.errors.ConfigError`, which holds every problem at once. Nothing in here
touches a socket; only the file and the files that it names are read.
"""

from broker.config.describe import describe
from broker.config.flags import split_where
from broker.config.load import load, reload
from broker.config.model import Config, Flags

__all__ = ["Config", "Flags", "describe", "load", "reload", "split_where"]
