"""Puts a report together: what is there becomes a section, what is not leaves none."""

import collections
import datetime
import json
import os

from .accuracy import Accuracy
from .areas import Areas
from .evaluation import interval, value
from .maps import Maps
from .parts import Figure
from .runs import card_html


def build(given, words):
    """The context of the template. `given` is ``command.Given``."""
    return Page(given, words).context()


class Page(Maps, Accuracy, Areas):
    """The sections of a report, and the verdict above them."""

    def __init__(self, given, words):
        self.given, self.words = given, words
        self.main = given.main
        self.evaluation = given.evaluation
        self.pixel_m = self.main.pixel_size_m()
        self.decimated = 1
        self._composites()
        self.threshold, self.origin = self._threshold()
        self.counts = self.map_counts()
        self.objects = given.objects

    def context(self):
        g, w = self.given, self.words
        sections = [
            ("maps", w("s_maps"), self.maps()),
            ("places", w("s_places"), self.places(g.places, w("places_text"))),
            ("wrong", w("s_wrong"), self.wrong()),
            ("accuracy", w("s_accuracy"), self.accuracy()),
            ("areas", w("s_areas"), self.areas()),
            ("season", w("s_season"), self.season()),
            ("objects", w("s_objects"), self.change_objects()),
            ("run", w("s_run"), self.run()),
            ("model", w("s_model"), self.models()),
        ]
        grid = [w("grid_line", columns=w.integer(self.main.width), rows=w.integer(self.main.height))]
        if self.pixel_m:
            grid.append(w("pixel_of", size=w.length(float("%.4g" % self.pixel_m))))
        if self.main.reference is not None and self.main.reference.GetName():
            grid.append(self.main.reference.GetName())
        return {
            "language": w.language,
            "title": g.title or w("title_series" if g.labels else "title_change"),
            "subtitle": self.subtitle(),
            "grid": " · ".join(grid),
            "made": w("made_with", version=_version(), date=w.date(_today())),
            "verdict": self.verdict(),
            "no_reference": w("v_no_reference") if not self.evaluation and not g.labels else None,
            "sections": [Figure(id=i, title=t, **content) for i, t, content in sections if content],
            "words": w,
        }

    def subtitle(self):
        g, w = self.given, self.words
        if g.subtitle:
            return g.subtitle
        names = [os.path.basename(r.path) for r in (g.date1, g.date2) if r is not None]
        if names:
            return " → ".join(names)
        if g.series:
            return w("v_dates_note", first=w.date(g.series.dates[0]), last=w.date(g.series.dates[-1]))
        return os.path.basename(self.main.path)

    def verdict(self):
        """The numbers that come first: [{"name", "value", "note"}]."""
        g, w, e = self.given, self.words, self.evaluation
        cards = []
        add = lambda name, text, note="": cards.append(Figure(name=name, value=text, note=note))  # noqa: E731
        if g.labels is not None:
            return self._verdict_series()
        binary = e and e.binary
        if binary:
            many = w("v_pairs", n=len(e.names)) if len(e.names) > 1 else ""
            for name, key, note in (
                ("f1", "v_f1", many),
                ("precision", "v_precision", w("v_precision_note")),
                ("recall", "v_recall", w("v_recall_note")),
            ):
                ends = interval(binary, name)
                told = w("v_interval", low=w.number(ends[0]), high=w.number(ends[1])) if ends else ""
                add(
                    w(key),
                    w.number(value(binary, name)),
                    "; ".join(filter(None, [told if name == "f1" else "", note or (told if name != "f1" else "")])),
                )
        corrected = self._corrected_change()
        if corrected:
            add(w("v_corrected"), *corrected)
        elif self.counts and g.change is not None:
            pixels, metres, share = self._changed()
            add(w("v_area"), w.area(metres) if metres is not None else w.pixels(pixels), w("v_share", share=w.percent(share)))
        if self.objects:
            middle = self.objects.median()
            note = w("v_objects_note", area=self._object_area(middle)) if middle is not None else ""
            add(w("v_objects"), w.integer(self.objects.count()), note)
        return cards

    def _verdict_series(self):
        g, w = self.given, self.words
        total = sum(self.counts.pixels.values())
        metres = sum(self.counts.metres.values()) if self.counts.metres is not None else None
        cards = [
            Figure(
                name=w("v_mapped"),
                value=w.area(metres) if metres is not None else w.pixels(total),
                note=w("v_classes", n=len(self._classes())),
            )
        ]
        if total:
            largest = max(self.counts.pixels, key=self.counts.pixels.get)
            cards.append(Figure(name=w("v_largest"), value=w.percent(self.counts.pixels[largest] / total), note=self._name(largest)))
        if g.confidence is not None:
            values, whole = g.confidence.sample()
            if values.size:
                cards.append(
                    Figure(
                        name=w("v_confidence"),
                        value=w.number(float(values.mean()), 2),
                        note=w("v_confidence_all" if whole else "v_confidence_note"),
                    )
                )
        if g.series:
            cards.append(
                Figure(
                    name=w("v_dates"),
                    value=w.integer(len(g.series.dates)),
                    note=w("v_dates_note", first=w.date(g.series.dates[0]), last=w.date(g.series.dates[-1])),
                )
            )
        return cards

    def run(self):
        g, w = self.given, self.words
        tables, facts = [], []
        if g.run:
            rows = [Figure(key=p.key, meaning=p.name, value=_short(p.values)) for p in g.run.parameters]
            tables.append(Figure(title=w("run_settings", name=g.run.application), rows=rows, meanings=True))
        noted = g.score.metadata("OTBTORCH_SETTINGS") if g.score is not None else None
        if noted and not g.run:
            tables.append(Figure(title=w("file_settings"), rows=_settings(noted), meanings=False))
        for path, settings in self.evaluation.settings if self.evaluation else []:
            rows = [Figure(key=k, value=_short(v if isinstance(v, list) else [v])) for k, v in settings.items()]
            if rows:
                tables.append(Figure(title=w("evaluation_settings"), rows=rows, meanings=False))
        log = g.log
        if log:
            facts = [Figure(key=k, value=v) for k, v in log["facts"]]
        versions = collections.OrderedDict([("OTBTorch", _version())])
        if g.run and g.run.otb:
            versions["Orfeo ToolBox"] = g.run.otb
        for name, label in (("otb", "Orfeo ToolBox"), ("gdal", "GDAL")):
            if self.evaluation and self.evaluation.software.get(name):
                versions.setdefault(label, self.evaluation.software[name])
        from osgeo import gdal

        versions.setdefault("GDAL", gdal.VersionInfo("RELEASE_NAME"))
        files = []
        for name, title in g.files_of(w):
            if os.path.exists(name):
                when = datetime.datetime.fromtimestamp(os.path.getmtime(name), datetime.timezone.utc).date()
                files.append(Figure(name=name, what=title, size=w.bytes(os.path.getsize(name)), date=w.date(when)))
        return {
            "kind": "run",
            "tables": tables,
            "facts": facts,
            "warnings": log["warnings"] if log else [],
            "log": log["text"] if log else "",
            "versions": versions.items(),
            "files": files,
        }

    def models(self):
        w, shown = self.words, []
        for model in self.given.models:
            p = model.properties
            tiling, calibration, made = (p.get("otb:" + k) or {} for k in ("tiling", "calibration", "provenance"))
            rows = [
                (w("model_name"), p.get("mlm:name")),
                (w("model_architecture"), p.get("mlm:architecture")),
                (w("model_task"), p.get("otb:task")),
                (w("model_bands"), " ".join(map(str, model.bands()))),
            ]
            if tiling.get("unit") == "pixel":
                rows.append((w("model_tiling"), w("model_pixel", window=tiling.get("window", 1))))
            elif tiling.get("patch"):
                rows.append(
                    (
                        w("model_tiling"),
                        w("model_patch", patch=tiling["patch"], halo=tiling.get("halo", 0), blend=tiling.get("blend", "crop")),
                    )
                )
            if p.get("otb:task") == "change-detection":
                rows.append(
                    (
                        w("model_calibration"),
                        w(
                            "model_temperature",
                            temperature=w.number(calibration.get("temperature", 1.0), 3),
                            threshold=w.number(calibration.get("threshold", 0.5), 3),
                        ),
                    )
                )
            rows += [(w("model_training"), made.get("training_data")), (w("model_license"), made.get("license"))]
            shown.append(
                Figure(
                    file=os.path.basename(model.path),
                    rows=[Figure(name=n, value=v) for n, v in rows if v],
                    card=card_html(model.card) if model.card else None,
                )
            )
        return {"kind": "models", "models": shown} if shown else None


def _short(values):
    text = [str(v).lower() if isinstance(v, bool) else "%g" % v if isinstance(v, float) else str(v) for v in values]
    return " ".join(text[:4]) + (" … (%d)" % len(text) if len(text) > 4 else "")


def _settings(text):
    try:
        return [Figure(key=k, value=_short(v if isinstance(v, list) else [v])) for k, v in json.loads(text).items()]
    except (ValueError, AttributeError):
        return [Figure(key="", value=text)]


def _today():
    """Today, or what SOURCE_DATE_EPOCH says."""
    stamp = os.environ.get("SOURCE_DATE_EPOCH")
    if stamp and stamp.isdigit():
        return datetime.datetime.fromtimestamp(int(stamp), datetime.timezone.utc).date()
    return datetime.date.today()


def _version():
    from .. import __version__

    return __version__


def render(context):
    """The page as text: everything inside, nothing loaded."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("otbtorch.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(**context)
