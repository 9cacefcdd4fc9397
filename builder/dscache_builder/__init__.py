"""The builder daemon of dscache: it turns requests in a bucket into published datasets."""

__version__ = "0.2.0"
