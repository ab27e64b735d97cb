"""iota2 with the applications of this module: a classification step, object features, external features, a builder.

Nothing here imports iota2 or dask before it is needed: :mod:`.classify`, :mod:`.features` and
:mod:`.external_features` work without both, :mod:`.steps` says what is missing. See doc/iota2.md.
"""


class Iota2Error(Exception):
    """What is wrong with a parameter, a file or a run: found, expected, what to do."""


def complaint(what, found, expected, hint=""):
    """An :class:`Iota2Error` in the words of the applications."""
    text = f"{what}: found {found}; expected {expected}"
    return Iota2Error(text + (f". {hint}" if hint else "."))
