import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real data sets."""
    folder = os.environ.get("OPENWORK_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("OPENWORK_DATA does not name a folder of data sets")
    return Path(folder)
