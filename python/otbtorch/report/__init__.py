"""The report of a run: one self-contained HTML file, its PDF, and a QGIS project.

``python3 -m otbtorch report --run change.xml --evaluation evaluation.json --out report.html``; see
``doc/report.md``. Needs GDAL, NumPy, matplotlib and Jinja2; not torch, OTB or QGIS.

| module | what it does |
|---|---|
| ``command`` | the command line: files of a run, checked |
| ``rasters`` | bounded reads of rasters of any size: overviews, windows, samples, counts, legends |
| ``vectors`` | change objects and places |
| ``evaluation`` | the JSON of ``otbcli_ChangeEvaluation`` |
| ``runs`` | settings and log of a run, model and its card |
| ``season`` | samples of a series, by class |
| ``pictures``, ``figures`` | images and plots as data URIs |
| ``words`` | every string in two languages, and numbers as these write them |
| ``page`` | puts it together, of ``maps``, ``accuracy`` and ``areas``; the templates are in ``templates/`` |
| ``qgis`` | the project file |
"""


class ReportError(Exception):
    """What the user can mend: a file, a grid, an option."""


def complaint(option, found, expected, advice=""):
    """A message as the applications make it: option, found, expected, what to do."""
    text = "%s: found %s; expected %s." % (option, found, expected)
    return ReportError(text + (" " + advice if advice else ""))
