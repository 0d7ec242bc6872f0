"""What an error of the disk means for who writes."""

import errno

_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: OSError) -> bool:
    """Whether the same call can succeed once there is space."""
    return error.errno in _FULL


def is_interruption(error: OSError) -> bool:
    """Whether it comes from a signal handler (TimeoutError is one): the disk's have a number."""
    return error.errno is None


class SyncFailed(Exception):
    """An fdatasync or directory fsync failed: what is on disk is not known any more."""
