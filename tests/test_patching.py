"""What is changed from outside for a while leaves no trace."""

import threading

import pytest

from alm2vec_integrations.checkpoint.patching import wrapped


class Owner:
    def name(self):
        return "own"


class Heir(Owner):
    pass


def shout(original, self):
    return original(self).upper()


def test_for_a_while_and_in_this_thread():
    """Others call what was there."""
    others = []
    with wrapped(Owner, "name", shout):
        thread = threading.Thread(target=lambda: others.append(Owner().name()))
        thread.start()
        thread.join()
        assert Owner().name() == "OWN"
    assert (Owner().name(), others) == ("own", ["own"])


def test_an_inherited_method_is_inherited_again():
    """And not copied to the heir."""
    with wrapped(Heir, "name", shout):
        assert (Heir().name(), Owner().name()) == ("OWN", "own")
    assert "name" not in vars(Heir)


def test_what_is_not_there_is_left_alone():
    """Versions of transformers differ."""
    with wrapped(Owner, "other", shout):
        assert not hasattr(Owner, "other")


def test_an_error_ends_it_too():
    """The original is back."""
    with pytest.raises(ValueError, match="x"), wrapped(Owner, "name", shout):
        raise ValueError("x")
    assert Owner().name() == "own"


def test_put_back_by_another_when_it_is_over():
    """Whoever changed the same place meanwhile brings back a wrapper that does nothing more."""
    original = Owner.name
    with wrapped(Owner, "name", shout):
        saved = Owner.name
    Owner.name = saved
    assert Owner().name() == "own"
    Owner.name = original
