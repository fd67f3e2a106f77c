"""One thing of each kind, written outside of whence."""
