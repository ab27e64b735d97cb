"""The applications inside QGIS, through its OTB provider: see ``doc/qgis.md``.

| module | what it does |
|---|---|
| ``descriptors`` | writes the descriptors that the provider reads, fits them to QGIS, checks them by the provider's rules |
| ``folder`` | ``python3 -m otbtorch qgis-folder``: an OTB folder for QGIS that holds OTB's applications and these, and the settings of a profile |
| ``launcher`` | what QGIS starts from that folder instead of OTB's own launcher |

Needs Python's standard library alone.
"""


class QgisError(Exception):
    """What the user can mend: a program, a folder, a descriptor."""
