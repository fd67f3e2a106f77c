import pytest
from small_study import TEXT
from trained_study import make_study


@pytest.fixture
def study_file(tmp_path):
    file = tmp_path / "small.toml"
    file.write_text(TEXT)
    return file


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """A small trained study: two problems, two methods, three seeds."""
    return make_study(tmp_path_factory.mktemp("study") / "first")
