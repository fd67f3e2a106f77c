import pytest
from small_study import TEXT


@pytest.fixture
def study_file(tmp_path):
    file = tmp_path / "small.toml"
    file.write_text(TEXT)
    return file
