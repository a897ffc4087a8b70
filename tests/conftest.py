"""Where the real tables are, and which tests need them."""

import os
from pathlib import Path

import pytest


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
