import pytest

from domainformer import errors


def subclasses(cls):
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


def test_every_error_is_drawn_in_the_docstring_tree():
    drawn = errors.__doc__ or ""
    for cls in subclasses(errors.DomainformerError):
        if cls.__module__ == errors.__name__:
            assert cls.__name__ in drawn


def test_message_has_four_parts_in_order():
    error = errors.DataError("what", where="here", why="because", next_step="do this")
    assert str(error).splitlines() == [
        "what",
        "  where: here",
        "  why:   because",
        "  next:  do this",
    ]


def test_input_errors_are_value_errors_and_missing_extras_are_import_errors():
    assert issubclass(errors.SchemaError, ValueError)
    with pytest.raises(ImportError, match=r"domainformer\[gbdt\]"):
        raise errors.MissingExtraError("lightgbm", extra="gbdt", purpose="the probe")


def test_nearest_without_options_is_silent():
    assert errors.nearest("x", []) is None
