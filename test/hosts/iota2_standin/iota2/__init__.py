"""What a step meets of iota2, written anew from a description of its interfaces: no code of iota2.

``Steps``, ``Common`` and ``Iota2Builder`` are those of 2020, as its own files define them. ``steps``,
``configuration_files``, ``sequence_builders`` and ``learning`` bear the names of the current iota2,
whose code was not at hand: they say that our guesses about it fit together, not that they are right.
Configurations are JSON here.
"""
