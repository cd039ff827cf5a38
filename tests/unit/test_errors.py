import inspect
import pickle

import pytest

from contracts import errors
from contracts.errors import TidemarkError, all_errors


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling_with_its_context(kind):
    error = kind("it broke", remedy="Mend it", table="silver.bars", rows=3)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error) == "it broke. Mend it"
    assert (copy.table, copy.rows, copy.context) == ("silver.bars", 3, error.context)


def test_an_error_without_remedy_is_its_message():
    assert str(TidemarkError("it broke")) == "it broke"


def test_unknown_context_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = TidemarkError("it broke", something=1).nothing


def test_codes_are_unique_and_start_with_their_parent():
    kinds = all_errors()
    assert len({kind.code for kind in kinds}) == len(kinds)
    for kind in kinds[1:]:
        parent = kind.__mro__[1]
        if parent is not TidemarkError:
            assert kind.code.startswith(parent.code + ".")


def test_all_errors_lists_every_class_of_the_module_and_the_tree_is_drawn():
    classes = {kind for _, kind in inspect.getmembers(errors, inspect.isclass)}
    classes = {kind for kind in classes if issubclass(kind, TidemarkError)}
    assert set(all_errors()) == classes
    assert all(kind.__name__ in errors.__doc__ for kind in classes)
