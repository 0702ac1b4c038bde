"""Disks that are full and folders of somebody else: what writes there meets an OSError."""

import contextlib
import os
import resource

import pytest


@contextlib.contextmanager
def full_disk():
    """No file may grow: writers meet an OSError, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def folder_of_somebody_else():
    """Nothing is put in place."""

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        yield


FAULTS = [full_disk, folder_of_somebody_else]
