"""What the sections of a page are made of."""


class Figure(dict):
    """A part of the page by its fields, None where it has none: a picture (``src``, ``alt``, ``title``, ``caption``, ``legend``, ``ramp``,
    ``scale``), a row, a table."""

    __getattr__ = dict.get
