"""Where the real tables are and which tests need them; what makes the suite quick."""

import gc
import os
import shutil
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")


def pytest_configure():
    """Put the folders of tests into memory, where there is a place of 2 GiB for them.

    Saving is safe against power cuts (fsync), and a disk takes longer for that than tests take to
    compute. ``PYTEST_DEBUG_TEMPROOT=/tmp`` or ``--basetemp`` chooses another place.
    """
    usable = MEMORY.is_dir() and os.access(MEMORY, os.W_OK)
    if usable and shutil.disk_usage(MEMORY).free >= 2 << 30:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_finish():
    """Keep the libraries out of garbage collection, a full one of which each training asks for."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data_root():
    """The folder of real data: DOMAINFORMER_DATA, else ../shared/data beside the checkout."""
    given = os.environ.get("DOMAINFORMER_DATA")
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(given) if given else beside
    if not folder.is_dir():
        name = "DOMAINFORMER_DATA names" if given else "DOMAINFORMER_DATA is not set, and there is"
        pytest.skip(f"needs the real tables: {name} no folder {folder}")
    return folder


def pytest_collection_modifyitems(items):
    """Mark every test that asks for the real tables, so that `-m 'not data'` leaves it out."""
    for item in items:
        if "data_root" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.data)
