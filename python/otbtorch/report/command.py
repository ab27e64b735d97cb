"""``python3 -m otbtorch report``: which files, checked, then the page, its PDF, the project."""

import os
import tempfile

from . import ReportError, complaint


def add_arguments(command):
    a = command.add_argument
    a("--out", metavar="FILE.html", help="the report, one file that holds everything")
    a("--pdf", metavar="FILE.pdf", help="the same as PDF (needs weasyprint)")
    a("--qgs", metavar="FILE.qgs", help="a QGIS project of the images, maps and objects")
    a(
        "--run",
        dest="job",
        metavar="FILE.xml",
        help="what the application wrote with -outxml: the files below are then known, and its settings shown",
    )
    a("--log", metavar="FILE", help="what the application printed: times, memory, warnings")
    a("--evaluation", metavar="FILE.json", nargs="+", default=[], help="results of otbcli_ChangeEvaluation, of one mode or several")
    a("--date1", metavar="FILE", nargs="+", help="image of the first date (one file, or its bands)")
    a("--date2", metavar="FILE", nargs="+", help="image of the second date")
    a("--change", metavar="FILE", help="change map or from-to map")
    a("--probability", metavar="FILE", help="probability of change")
    a("--score", metavar="FILE", help="score of ChangeLikelihood")
    a("--pvalue", metavar="FILE", help="-log10 p of ChangeLikelihood")
    a("--sem1", metavar="FILE", help="classes of the first date")
    a("--sem2", metavar="FILE", help="classes of the second date")
    a("--errors", metavar="FILE", help="map of errors of ChangeEvaluation (unset: the one that the evaluation names)")
    a("--objects", metavar="FILE.gpkg", help="change objects")
    a("--labels", metavar="FILE", help="label map of TimeSeriesClassify")
    a("--confidence", metavar="FILE", help="confidence of either map")
    a("--valid-dates", metavar="FILE", help="number of valid dates")
    a("--series", metavar="FILE", nargs="+", help="the series: a stack, or an image per date")
    a("--dates", metavar="FILE.txt", help="dates of the series, one a line")
    a("--series-mask", metavar="FILE", nargs="+", help="validity of the series, a band or a file per date")
    a("--mask-type", choices=["invalid", "valid", "scl"], help="how it is read (default: the run's, else invalid)")
    a("--series-bands", metavar="NAME", nargs="+", help="bands of a date (default: those of the model)")
    a("--model", metavar="FILE.pt", help="the model: its contract, and the card beside it (.md)")
    a("--card", metavar="FILE.md", help="a model card instead of the one beside the model")
    a("--places", metavar="FILE", help="places to show: CSV (name,x,y | name,lon,lat | name,column,row, optionally size) or vectors")
    a("--worst", type=int, default=4, metavar="N", help="places with most errors to show (default: 4)")
    a("--bands", type=int, nargs=3, metavar="N", help="bands shown as red, green and blue")
    a("--threshold", type=float, help="threshold of the score (default: as the files say)")
    a("--lang", choices=["en", "fr"], default="en", help="language (default: en)")
    a("--title", help="instead of the general title")
    a("--subtitle", help="instead of the names of the images")


#: Option, key of the run, several files?
_BY_RUN = {
    "SiameseCD": [
        ("date1", "in1", True),
        ("date2", "in2", True),
        ("change", "out", False),
        ("probability", "proba", False),
        ("sem1", "sem1", False),
        ("sem2", "sem2", False),
        ("confidence", "conf", False),
        ("objects", "objects", False),
        ("model", "model", False),
    ],
    "ChangeLikelihood": [
        ("date1", "in1", True),
        ("date2", "in2", True),
        ("score", "out", False),
        ("change", "change", False),
        ("pvalue", "pvalue", False),
        ("objects", "objects", False),
        ("model", "model", False),
    ],
    "TimeSeriesClassify": [
        ("labels", "out", False),
        ("confidence", "confmap", False),
        ("valid_dates", "nvalid", False),
        ("series", "in", True),
        ("series", "il", True),
        ("dates", "dates", False),
        ("series_mask", "maskl", True),
        ("model", "model", False),
    ],
}
_RASTERS = ("date1", "date2", "change", "probability", "score", "pvalue", "sem1", "sem2", "errors", "labels", "confidence", "valid")


class Given:
    """All that a report is made of, opened and checked: rasters on one grid, None where there is none."""

    def __init__(self, args):
        from .evaluation import Evaluation
        from .rasters import Raster
        from .runs import Model, Run, read_log
        from .vectors import Objects, read_places

        self.title, self.subtitle, self.bands, self.threshold, self.worst = (
            args.title,
            args.subtitle,
            args.bands,
            args.threshold,
            args.worst,
        )
        self.run = Run(args.job) if args.job else None
        self.log = read_log(args.log) if args.log else None
        names = {
            k: getattr(args, k)
            for k in (
                "date1",
                "date2",
                "change",
                "probability",
                "score",
                "pvalue",
                "sem1",
                "sem2",
                "errors",
                "objects",
                "labels",
                "confidence",
                "valid_dates",
                "series",
                "dates",
                "series_mask",
                "model",
            )
        }
        if self.run:
            for option, key, several in _BY_RUN[self.run.application]:
                if names[option] is None and self.run.values(key):
                    files = self.run.files(key)
                    names[option] = files if several else files[0]
        self.evaluation = Evaluation(args.evaluation) if args.evaluation else None
        if names["errors"] is None and self.evaluation:
            names["errors"] = self.evaluation.errors()
        names["valid"] = names.pop("valid_dates")
        for kind in _RASTERS:
            setattr(self, kind, Raster(names[kind], "--" + kind.replace("valid", "valid-dates")) if names[kind] else None)
        maps = [r for r in (self.labels, self.change, self.probability, self.score, self.errors, self.sem1) if r is not None]
        if not maps:
            raise complaint(
                "report", "no map", "--run, or --change, --probability, --score or --labels", "See python3 -m otbtorch report --help."
            )
        self.main = maps[0]
        for kind in _RASTERS:
            raster = getattr(self, kind)
            if raster is not None and raster is not self.main:
                if kind in ("date1", "date2"):
                    raster.onto(self.main)
                else:
                    raster.must_match(self.main)
        for raster in (self.date1, self.date2):
            for band in args.bands or [] if raster is not None else []:
                if not 1 <= band <= raster.count:
                    raise complaint("--bands", "band %d of %s" % (band, raster.path), "bands 1 to %d" % raster.count)
        self.objects = Objects(names["objects"].split("?")[0]) if names["objects"] else None
        self.models = []
        self._contract = (self.run.files("contract") or [None])[0] if self.run else None
        if names["model"] and names["model"].endswith(".txt"):
            self.models = [Model(p, args.card, self._contract) for p in _ensemble(names["model"])]
        elif names["model"]:
            self.models = [Model(names["model"], args.card, self._contract)]
        self.model = self.models[0] if self.models else None
        self._series(args, names)
        self.places = read_places(args.places, self.main) if args.places else []
        self._names = names

    def _series(self, args, names):
        from .rasters import Raster
        from .season import Series

        self.series = self.validity = None
        said = (self.run.values("masktype") or ["invalid"])[0] if self.run else "invalid"
        self.validity_kind = args.mask_type or said
        if not names["series"] or self.labels is None:
            return
        bands = args.series_bands or (self.run.values("bands") if self.run else []) or (self.model.bands() if self.model else [])
        if not names["dates"]:
            if args.series:
                raise complaint("series", "no dates", "--dates with a date a line")
            return  # of a run that took them from the names: the maps are shown all the same
        if not bands:
            raise complaint("series", "neither the names of its bands nor a model", "--series-bands")
        self.series = Series(names["series"], names["dates"], bands)
        self.series.raster.must_match(self.main)
        if names["series_mask"]:
            self.validity = Raster(names["series_mask"], "--series-mask").onto(self.main)

    def files_of(self, words):
        """[(file, what it is)] of the maps and of the rest."""
        found = []
        for kind in (
            "date1",
            "date2",
            "series",
            "change",
            "probability",
            "score",
            "pvalue",
            "sem1",
            "sem2",
            "labels",
            "confidence",
            "valid",
            "errors",
            "objects",
            "model",
        ):
            files = self._names.get(kind) or []
            for name in [files] if isinstance(files, str) else files[:8]:
                found.append((name.split("?")[0], words("m_" + kind)))
        return found

    def slow(self):
        """Files so large that an overview without pyramids takes long."""
        rasters = [getattr(self, k) for k in _RASTERS] + [self.series.raster if self.series else None]
        return [r.path for r in rasters if r is not None and r.lacks_pyramids()]


def _ensemble(path):
    """Members of a list of models, relative to it."""
    try:
        with open(path, encoding="utf-8") as stream:
            lines = [line.split("#")[0].strip() for line in stream]
    except OSError as error:
        raise complaint("model", '"%s", which cannot be read (%s)' % (path, error.strerror), "a list of models") from error
    return [os.path.join(os.path.dirname(path), line) for line in lines if line]


def command(args):
    """Runs the subcommand. Raises ReportError."""
    if not (args.out or args.pdf or args.qgs):
        raise complaint("report", "nothing to write", "--out report.html, --pdf report.pdf or --qgs project.qgs")
    for option, extensions in (("out", (".html", ".htm")), ("pdf", (".pdf",)), ("qgs", (".qgs",))):
        path = getattr(args, option)
        if not path:
            continue
        if os.path.splitext(path)[1].lower() not in extensions:
            raise complaint("--" + option, '"%s"' % path, "a name that ends in " + extensions[0])
        if not os.path.isdir(os.path.dirname(path) or "."):
            raise complaint("--" + option, 'no folder "%s"' % os.path.dirname(path), "one that exists", "Create it first.")
    weasyprint = _weasyprint() if args.pdf else None
    _needs(["osgeo", "numpy", "PIL", "matplotlib"] + (["jinja2", "markdown"] if args.out or args.pdf else []))
    from osgeo import gdal

    gdal.SetCacheMax(64 << 20)  # of blocks that are read once it is no use to keep more
    given = Given(args)
    for path in given.slow():
        print('note: %s has no pyramids, so that an overview reads much of it; gdaladdo -ro "%s" makes this quick' % (path, path))
    if args.out or args.pdf:
        from . import page
        from .words import Words

        html = page.render(page.build(given, Words(args.lang)))
        if args.out:
            write(args.out, html.encode("utf-8"))
            print("wrote " + args.out)
        if args.pdf:
            write(args.pdf, weasyprint.HTML(string=html, base_url=None, url_fetcher=_only_inside).write_pdf())
            print("wrote " + args.pdf)
    if args.qgs:
        from . import qgis
        from .words import Words

        qgis.write(args.qgs, given, Words(args.lang))
        print("wrote " + args.qgs)
    return 0


PACKAGES = {
    "osgeo": "python3-gdal",
    "numpy": "python3-numpy",
    "PIL": "python3-pil",
    "matplotlib": "python3-matplotlib",
    "jinja2": "python3-jinja2",
    "markdown": "python3-markdown",
    "weasyprint": "weasyprint",
}


def _needs(modules):
    import importlib.util

    missing = [PACKAGES[m] for m in modules if importlib.util.find_spec(m) is None]
    if missing:
        raise ReportError(
            "report: Python lacks %s. Install: apt-get install --no-install-recommends %s" % (", ".join(missing), " ".join(missing))
        )


def _weasyprint():
    _needs(["weasyprint"])
    import logging

    import weasyprint

    # What it does not know of screens is of no interest.
    logging.getLogger("weasyprint").setLevel(logging.ERROR)
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    return weasyprint


def _only_inside(url, *_, **__):
    """The page loads nothing."""
    if not url.startswith("data:"):
        raise ReportError("the report asks for " + url)
    import weasyprint

    return weasyprint.default_url_fetcher(url)


def write(path, data):
    """The file appears whole or not at all."""
    folder = os.path.dirname(os.path.abspath(path))
    try:
        handle, part = tempfile.mkstemp(prefix=os.path.basename(path) + ".part-", dir=folder)
    except OSError as error:
        raise complaint(path, "that it cannot be written (%s)" % error.strerror, "a writable file name") from error
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(part, 0o666 & ~mask)
        os.replace(part, path)
    except OSError as error:
        os.unlink(part)
        raise complaint(path, "that it cannot be written (%s)" % error.strerror, "room on the disk") from error
