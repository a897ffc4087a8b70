import io

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from domainformer.schema import infer_schema
from domainformer.schema.profile import percent


@pytest.fixture(scope="module")
def found():
    rng = np.random.default_rng(0)
    table = pl.DataFrame(
        {
            "customer_id": [None, *(i // 20 for i in range(399))],
            "step": rng.integers(0, 500, 400),
            "amount": rng.normal(10, 8, 400),
            "kind": rng.choice(["[bold]Fuel[/bold]", "Food"], 400),
            "nothing": [None] * 400,
        }
    )
    return infer_schema(table)


def printed(found, width):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    found.render(console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_table_fits_the_console_and_names_everything(found, width):
    text = printed(found, width)
    assert max(map(len, text.splitlines())) <= width
    flat = "".join(text.split())
    for word in ("customer_id", "theentity", "amount_sign", "dropped", "ithasnovalue"):
        assert word in flat
    assert "one event: kind → amount_sign → amount → step" in " ".join(text.split())
    assert "1 rows without customer_id were left out" in text


def test_values_are_never_read_as_markup(found):
    assert "[bold]Fuel" in "".join(printed(found, 200).split())


def test_rendering_without_a_console_prints(found, capsys):
    found.render()
    assert "amount" in capsys.readouterr().out


def test_a_share_that_is_not_zero_is_not_shown_as_zero():
    assert percent(0.0) == "0%"
    assert percent(0.000014) == "0.001%"
    assert percent(0.99996) == "99.996%"
