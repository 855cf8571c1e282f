"""What every test shares: a cache folder that is not the user's, and random numbers that no other test has used."""

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

# the suite does the same every time; `HYPOTHESIS_PROFILE=default` looks for new examples
settings.register_profile("suite", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


@pytest.fixture(autouse=True, scope="session")
def own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Speeds measured on a busy test machine are not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def own_random_numbers() -> None:
    """What a test draws does not depend on those that came before it in the same process."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
