import pytest

from domainformer.config import StrictConfig, build, load_config, parse_yaml, read_yaml
from domainformer.errors import ConfigError


class Inner(StrictConfig):
    rate: float = 0.1


class Outer(StrictConfig):
    inner: Inner = Inner()
    steps: int = 3


def test_all_errors_are_told_at_once_with_the_nearest_key():
    with pytest.raises(ConfigError) as caught:
        build(Outer, {"inner": {"raet": 1}, "steps": "many"}, where="run.yaml")
    text = str(caught.value)
    assert "2 errors" in text
    assert "inner.raet: unknown key (did you mean 'rate'?)" in text
    assert "steps:" in text
    assert "run.yaml" in text


def test_yaml_round_trip_and_hash(tmp_path):
    config = Outer(steps=5)
    config.to_yaml(tmp_path / "c.yaml")
    again = load_config(Outer, tmp_path / "c.yaml")
    assert again == config
    assert again.hash() == config.hash() != Outer().hash()


def test_overrides_win_over_the_file(tmp_path):
    (tmp_path / "c.yaml").write_text("steps: 4\n")
    config = load_config(Outer, tmp_path / "c.yaml", ["inner.rate=0.5"])
    assert (config.steps, config.inner.rate) == (4, 0.5)
    with pytest.raises(ConfigError, match="key.key=value"):
        load_config(Outer, None, ["steps"])


def test_alias_bombs_code_and_size_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="aliases"):
        parse_yaml("a: &a [1, 2]\nb: [*a, *a]\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        parse_yaml("a: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(ConfigError, match="mapping"):
        parse_yaml("- 1\n")
    big = tmp_path / "big.yaml"
    big.write_text("a: " + "x" * (1 << 20))
    with pytest.raises(ConfigError, match="1 MiB"):
        read_yaml(big)
    with pytest.raises(ConfigError, match="no file"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "events.parquet").write_bytes(b"PAR1\x15\xa0")
    with pytest.raises(ConfigError, match="is no text"):
        read_yaml(tmp_path / "events.parquet")
