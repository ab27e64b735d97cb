"""Puts a report together: what is there becomes a section, what is not leaves none."""

import collections
import datetime
import math
import os
import re

import numpy as np

from . import evaluation as evaluations
from . import figures, pictures, season, vectors
from .evaluation import interval, value
from .rasters import ERRORS, PALETTE, Entry, rgb
from .runs import card_html

#: Longest side, in pixels, of an overview, a place, an object.
OVERVIEW, PLACE, OBJECT = 760, 256, 200
#: Objects of either list.
OBJECTS = 6
COLUMNS = 100  # of a histogram that is made here


class Figure(dict):
    """A picture with its caption: ``src``, ``alt``, ``title``, ``caption``, ``legend``, ``ramp``, ``scale``."""

    __getattr__ = dict.get


def build(given, words):
    """The context of the template. `given` is ``command.Given``."""
    return _Page(given, words).context()


class _Page:
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

    # ------------------------------------------------------------------------------------------------- what is at hand

    def _composites(self):
        """Overviews of the dates, with one stretch where their bands are alike."""
        g = self.given
        self.rgb, self.stretch, self.together = {}, {}, True
        found = {}
        for name in ("date1", "date2"):
            raster = getattr(g, name)
            if raster is None:
                continue
            self.rgb[name] = g.bands or default_bands(raster, g.model)
            found[name] = self._picture(raster, self.rgb[name])
        self.together = len(found) == 2 and g.date1.count == g.date2.count
        for name, values in found.items():
            self.stretch[name] = pictures.Stretch(list(found.values()) if self.together else [values])
        self.images = {name: self.stretch[name](values) for name, values in found.items()}

    def _picture(self, raster, numbers, longest=None, window=None):
        longest = longest or OVERVIEW
        if window is None:
            rows, columns, k = raster.shape_within(longest)
            self.decimated = max(self.decimated, round(max(raster.width / (columns * k), raster.height / (rows * k))))
        return raster.picture(numbers, longest, window)

    def _threshold(self):
        """(value, where it comes from) of the score or probability; (None, "")."""
        g, w = self.given, self.words
        if g.threshold is not None:
            return g.threshold, w("origin_given")
        told = self.evaluation and self.evaluation.threshold
        if told and told.get("value") is not None:
            origin = {"given": w("origin_given"), "0.5 of a probability": w("origin_half"), "of the file": ""}.get(
                told.get("origin"), told.get("origin") or ""
            )
            if origin:
                return told["value"], origin
        if g.score is not None and g.score.metadata("OTBTORCH_THRESHOLD"):
            return float(g.score.metadata("OTBTORCH_THRESHOLD")), g.score.metadata("OTBTORCH_THRESHOLD_RULE") or w("origin_given")
        if g.probability is not None:
            asked = [float(v) for v in g.run.values("thr")] if g.run else []
            if asked and asked[0] >= 0:
                return asked[0], w("origin_given")
            if g.model:
                return g.model.threshold(), w("origin_contract")
        return None, ""

    def map_counts(self):
        raster = self.given.labels or self.given.change
        return raster.counts() if raster else None

    def legend(self, raster, counts=None, names=None):
        """Entries by value of a map: its own, else of the model's classes, else made of what is there."""
        entries = raster.legend()
        if entries is None and raster is self.given.errors:
            entries = ERRORS
        if entries is None and names:
            entries = [
                Entry(c["value"], c["name"], "#" + (c.get("color_hint") or PALETTE[k % len(PALETTE)][1:]), True)
                for k, c in enumerate(names)
            ]
        if entries is None:
            seen = sorted(v for v in (counts or raster.counts()).pixels)
            if raster is self.given.change and set(seen) <= {0, 1, 255}:
                entries = [Entry(0, "no change", "#f0f0f0", False), Entry(1, "change", PALETTE[5], True)]
            else:
                entries = [
                    Entry(v, str(v), PALETTE[k % len(PALETTE)], not (v == 0 and raster is self.given.change)) for k, v in enumerate(seen)
                ]
        return {e.value: e._replace(label=self.words.label(re.sub("^(TP|FP|FN|TN): ", "", e.label))) for e in entries}

    @property
    def map_legend(self):
        if not hasattr(self, "_map_legend"):
            raster = self.given.labels or self.given.change
            names = self.given.model.classes() if self.given.model and self.given.labels else None
            self._map_legend = self.legend(raster, self.counts, names) if raster else {}
            # What declares no no-data value may still use the customary one.
            if self.given.change is not None and raster is self.given.change and 255 not in self._map_legend:
                self._blank = 255
        return self._map_legend

    # ----------------------------------------------------------------------------------------------------- the verdict

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
            sizes = self.objects.areas()
            note = ""
            if sizes.size:
                note = w("v_objects_note", area=self._object_area(float(np.median(sizes))))
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

    def _classes(self):
        """Values on the map that are classes (0 of a label map is no label)."""
        return [v for v in self.counts.pixels if not (self.given.labels is not None and v == 0 and 0 not in self.map_legend)]

    def _name(self, code):
        entry = self.map_legend.get(code)
        return entry.label if entry else str(code)

    def _changed(self):
        """(pixels, square metres or None, share of the pixels with data) of change on the map."""
        blank = {255} if 255 not in self.map_legend and self.given.change.nodata() is None else set()
        good = {v: n for v, n in self.counts.pixels.items() if v not in blank}
        changed = {v for v in good if v != 0}
        pixels = sum(good[v] for v in changed)
        metres = sum(self.counts.metres[v] for v in changed) if self.counts.metres is not None else None
        return pixels, metres, pixels / max(1, sum(good.values()))

    def _corrected_change(self):
        areas = self.evaluation and self.evaluation.areas
        if not areas or self.given.labels is not None:
            return None
        change = [c for c in areas.get("classes", []) if c.get("class") == 1]
        if len(areas.get("classes", [])) > 2 or not change:
            return None  # transitions have their own table
        one, w = change[0], self.words
        metres, pixels = one.get("area_m2"), one.get("area_pixels") or {}
        if metres and metres.get("value") is not None:
            return w.area(metres["value"]), w("v_plus_minus", half=w.area(metres.get("half_width")))
        if pixels.get("value") is None:
            return None
        return w.pixels(pixels["value"]), w("v_plus_minus", half=w.pixels(pixels.get("half_width") or math.nan))

    # ---------------------------------------------------------------------------------------------------------- maps

    def _show(self, kind, raster, window=None, longest=None, ground=None):
        """A picture (rows, columns, 3) of a map, and how to read it: (pixels, legend, ramp, caption)."""
        w = self.words
        longest = longest or OVERVIEW
        if kind in ("change", "labels", "sem1", "sem2", "errors"):
            rows, columns, k = raster.shape_within(longest, window, 3)
            if window is None:
                self.decimated = max(self.decimated, round(max(raster.width / (columns * k), raster.height / (rows * k))))
            values, valid = raster.read_integers(1, window, (rows * k, columns * k))
            if kind == "errors":
                legend = self.legend(raster)
                # What is right recedes.
                legend = {
                    v: e._replace(shown=v in (1, 2, 3), colour=_lighter(e.colour) if v == 1 else e.colour)
                    for v, e in legend.items()
                    if v <= 3
                }
            elif kind in ("change", "labels"):
                legend = self.map_legend
                valid = valid & ~(values == getattr(self, "_blank", -1)) if raster.nodata() is None and kind == "change" else valid
                if kind == "labels" and raster.nodata() is None and 0 not in legend:
                    valid = valid & (values != 0)
            else:
                legend = self.legend(raster, names=self.given.model.classes() if self.given.model else None)
            below = None if ground is None or kind in ("labels", "sem1", "sem2") else pictures.pale(ground)
            picture = pictures.classes(values, valid, legend.values(), below, k)
            there = set(np.unique(values[valid]).tolist())
            shown = [Figure(colour=e.colour, label=e.label) for e in legend.values() if e.shown and (kind == "errors" or e.value in there)]
            if not valid.all():
                shown.append(Figure(colour=pictures.NO_DATA, label=w("nodata")))
            caption = {
                "change": w("c_change" if below is not None else "c_change_bare"),
                "errors": w("c_errors"),
                "labels": w("c_labels"),
            }.get(kind, w("c_labels"))
            return picture, shown[:24], None, caption
        colours = {"probability": "inferno", "score": "inferno", "pvalue": "inferno"}.get(kind, "viridis")
        values = self._picture(raster, [1], longest, window)[0]
        low, high = self._range(kind, raster, values)
        picture = pictures.ramp(values, colours, low, high)
        caption = w({"pvalue": "c_pvalue", "valid": "c_valid"}.get(kind, "c_ramp"), low=w.tick(low), high=w.tick(high))
        return picture, [], _gradient(colours), caption

    def _range(self, kind, raster, values):
        if kind in ("probability", "confidence"):
            return 0.0, 1.0
        if not hasattr(self, "_ranges"):
            self._ranges = {}
        if kind not in self._ranges:
            good = values.compressed()
            low, high = np.percentile(good, [1, 99.5]) if good.size else (0, 1)
            if kind == "pvalue":
                low, high = 0.0, max(4.0, min(6.0, high))
            elif kind == "valid":
                low, high = float(np.floor(low)), float(np.ceil(good.max() if good.size else 1))
            self._ranges[kind] = float("%.3g" % low), float("%.3g" % max(high, low + 1e-6))
        return self._ranges[kind]

    def maps(self):
        g, w = self.given, self.words
        shown = []
        for name in ("date1", "date2"):
            raster = getattr(g, name)
            if raster is None:
                continue
            caption = w("c_images" if self.together else "c_images_apart", bands=" ".join(map(str, self.rgb[name])))
            if name == "date2" and self.together and g.date1 is not None:
                caption = ""
            shown.append(self._figure(self.images[name], w("m_" + name), caption, photo=True, scale=not shown))
        if g.series:
            picture, date = self._clear_date()
            shown.append(
                self._figure(
                    picture,
                    w("m_image", date=w.date(date)),
                    w("c_image", bands=" ".join(g.series.bands[(n - 1) % len(g.series.bands)] for n in g.series.rgb(0))),
                    photo=True,
                    scale=True,
                )
            )
        ground = self.images.get("date2")
        for kind in ("change", "probability", "score", "pvalue", "errors", "sem1", "sem2", "labels", "confidence", "valid"):
            raster = getattr(g, kind)
            if raster is None:
                continue
            picture, legend, ramp, caption = self._show(kind, raster, ground=ground)
            shown.append(self._figure(picture, w("m_" + kind), caption, legend, ramp, scale=not shown))
        note = w("c_decimated", n=self.decimated) if self.decimated > 1 else ""
        return {"kind": "maps", "figures": shown, "note": note} if shown else None

    def _figure(self, picture, title, caption="", legend=(), ramp=None, photo=False, scale=False, alt=None, side=None):
        rows, columns = picture.shape[:2]
        if side or max(rows, columns) < 320:
            picture = pictures.enlarged(picture, side or 640)
        bar = None
        if scale:
            share, length = pictures.scale_bar(self.main.width, self.pixel_m)
            bar = Figure(share="%.4g%%" % (100 * share), text=self.words.length(length) if self.pixel_m else self.words.pixels(length))
        return Figure(
            src=pictures.uri(picture, photo),
            alt=alt or self.words("alt_picture", what=title),
            title=title,
            caption=caption,
            legend=list(legend),
            ramp=ramp,
            scale=bar,
            width=picture.shape[1],
            height=picture.shape[0],
        )

    def _clear_date(self):
        """The image with most valid pixels among those of the middle half of the season."""
        s, g = self.given.series, self.given
        n = len(s.dates)
        middle = range(n // 4, max(n // 4 + 1, n - n // 4))
        shape = [max(1, v // max(1, max(g.labels.width, g.labels.height) // 64)) for v in (g.labels.height, g.labels.width)]

        def clear(d):
            if g.validity is not None:
                values = g.validity.read([d + 1], shape=tuple(shape)).filled(0 if g.validity_kind == "valid" else 1)
                return season.dates_of.mask_valid(values, g.validity_kind).mean()
            return 1 - np.ma.getmaskarray(s.raster.read([s.rgb(d)[0]], shape=tuple(shape))).mean()

        best = max(middle, key=clear)
        values = self._picture(s.raster, s.rgb(best))
        return pictures.Stretch([values])(values), s.dates[best]

    # --------------------------------------------------------------------------------------------------------- places

    def places(self, found, text, notes=None):
        if not found:
            return None
        w, rows = self.words, []
        for k, place in enumerate(found):
            name = place.name or str(k + 1)
            tiles, ground = [], None
            for kind in ("date1", "date2"):
                raster = getattr(self.given, kind)
                if raster is not None:
                    picture = self.stretch[kind](raster.picture(self.rgb[kind], PLACE, place.window))
                    ground = picture if kind == "date2" else ground
                    tiles.append(self._tile(picture, w("m_" + kind), name, True))
            for kind in ("change", "probability", "score", "errors", "labels", "confidence"):
                raster = getattr(self.given, kind)
                if raster is not None and not (kind == "score" and self.given.probability is not None):
                    tiles.append(self._tile(self._show(kind, raster, place.window, PLACE, ground)[0], w("m_" + kind), name))
            rows.append(Figure(name=name, where=self._where(place.window), note=notes[k] if notes else "", tiles=tiles))
        return {"kind": "places", "text": text, "places": rows}

    def _tile(self, picture, what, name, photo=False):
        return self._figure(picture, what, alt=self.words("alt_place", what=what, place=name), photo=photo, side=PLACE)

    def _where(self, window):
        """Centre of a window in the map's coordinates and in degrees, and its width."""
        w, r = self.words, self.main
        x, y = r.to_map(window.x + window.width / 2, window.y + window.height / 2)
        parts = []
        if r.transform is None:
            parts.append("%s, %s" % (w.integer(x), w.integer(y)))
        elif r.reference is not None and r.reference.IsGeographic():
            parts.append(w.degrees(x, y))
        else:
            parts.append("%s, %s" % (w.integer(x), w.integer(y)))
            degrees = r.to_degrees(x, y)
            if degrees:
                parts.append(w.degrees(*degrees))
        if self.pixel_m:
            parts.append(w("width_of", width=w.length(float("%.3g" % (window.width * self.pixel_m)))))
        return " · ".join(parts)

    def wrong(self):
        g, w = self.given, self.words
        if g.errors is None or g.worst < 1:
            return None
        side = min(vectors.SIDE, max(32, min(self.main.width, self.main.height) // 4))
        found = vectors.worst_places(g.errors, g.worst, side)
        notes = []
        for place in found:
            values, valid = g.errors.read_integers(1, place.window)
            notes.append(
                w(
                    "place_errors",
                    fp=w.integer(int((values == 2).sum())),
                    fn=w.integer(int((values == 3).sum())),
                    pixels=w.integer(int(valid.sum())),
                )
            )
        return self.places(found, w("wrong_text", n=len(found), side=side), notes)

    # ------------------------------------------------------------------------------------------------------- accuracy

    def accuracy(self):
        w, e = self.words, self.evaluation
        tables, plots, matrices, notes = [], self.plots(), [], []
        if e:
            for name in ("binary", "score", "calibration", "objects"):
                self._table(tables, "g_" + name, e.groups.get(name))
            for name in ("two_date", "from_to"):
                self._table(tables, "g_" + name, (e.semantic or {}).get(name))
            if e.binary:
                matrices.append(
                    self._matrix(w("confusion"), [w.label(c) for c in e.binary["classes"]], e.binary["matrix"], w("confusion_text"))
                )
            two = (e.semantic or {}).get("two_date")
            if two and two.get("matrix"):
                matrices.append(self._matrix(w("matrix_two_date"), [w.label(c) for c in two["classes"]], two["matrix"]))
            for n, date in enumerate((e.semantic or {}).get("dates", []), 1):
                matrices.append(self._matrix(w("matrix_date", n=n), date["classes"], date["matrix"]))
            if e.objects:
                counted = {k: w.integer((e.objects.get(k) or {}).get("count", math.nan)) for k in ("matched", "predicted", "reference")}
                notes.append(w("objects_match", **counted))
            if e.pixels:
                notes.append(
                    w("evaluated", evaluated=w.integer(e.pixels.get("evaluated", math.nan)), all=w.integer(e.pixels.get("all", math.nan)))
                )
            side = next((s.get("block") for _, s in e.settings if s.get("block")), None)
            if e.blocks and side and any(r.interval != "–" for t in tables for r in t.rows):
                notes.append(w("blocks", blocks=w.integer(e.blocks), side=side))
        if not (tables or plots):
            return None
        # The small matrix fills a gap in the grid, if there is one.
        free = "tables" if len(tables) % 3 else "plots" if sum(not p.wide for p in plots) % 3 else None
        beside = Figure({free: matrices.pop(0)}) if e and e.binary and free else Figure()
        return {
            "kind": "accuracy",
            "heading": w("s_accuracy" if e else "h_histogram"),
            "tables": tables,
            "beside": beside,
            "plots": plots,
            "matrices": matrices,
            "notes": notes,
            "pairs": self._pairs(),
        }

    def _table(self, tables, key, group):
        found = evaluations.figures(group)
        if found:
            rows = [Figure(name=self._figure_name(n), value=self.words.number(v), interval=self.words.between(i)) for n, v, i in found]
            tables.append(Figure(title=self.words(key), rows=rows, intervals=any(r.interval != "–" for r in rows)))

    def _figure_name(self, name):
        from .words import WORDS

        return self.words("f_" + name) if "f_" + name in WORDS else name

    def _matrix(self, title, names, rows, text="", number=None, corner=None, diagonal=True):
        number = number or self.words.integer
        shown = []
        for k, row in enumerate(rows):
            total = sum(row)
            cells = [
                Figure(text=number(v), shade=round(0.32 * v / total, 3) if total else 0, right=diagonal and i == k)
                for i, v in enumerate(row)
            ]
            shown.append(Figure(name=names[k], cells=cells, total=number(total)))
        bottom = [number(sum(row[i] for row in rows)) for i in range(len(names))]
        return Figure(
            title=title,
            names=names,
            rows=shown,
            bottom=bottom,
            total=number(sum(map(sum, rows))),
            text=text,
            corner=corner or "%s \\ %s" % (self.words("map_says"), self.words("reference_says")),
        )

    def _pairs(self):
        w, e = self.words, self.evaluation
        if not e or not e.pairs:
            return None
        columns = [
            (g, n)
            for g, names in (
                ("binary", ("precision", "recall", "f1", "iou", "kappa")),
                ("score", ("auroc", "ap", "best_f1")),
                ("objects", ("f1",)),
            )
            for n in names
            if value(e.groups.get(g), n) is not None
        ]
        line = lambda metrics: [w.number(value((metrics or {}).get(g), n)) for g, n in columns]  # noqa: E731
        heads = [self._figure_name(n) if g != "objects" else "%s (%s)" % (self._figure_name(n), w("g_objects")) for g, n in columns]
        return Figure(
            heads=heads, rows=[Figure(name=p.get("name", ""), cells=line(p.get("metrics"))) for p in e.pairs], pooled=line(e.groups)
        )

    def plots(self):
        g, w, e = self.given, self.words, self.evaluation
        plots = []
        add = lambda key, src, caption: plots.append(
            Figure(src=src, title=w(key), caption=caption, wide=key == "h_histogram", alt=w("alt_plot", what=w(key) + ". " + caption))
        )  # noqa: E731
        score = e and e.score
        drawn = g.probability if g.probability is not None else g.score
        name = w("m_probability" if g.probability is not None else "m_score").lower()
        line = w("threshold_origin", value=w.number(self.threshold, 3), origin=self.origin) if self.threshold is not None else ""
        counted = (score or {}).get("histogram")
        if counted and counted.get("low") is not None and counted.get("width"):
            no, yes = np.array(counted["no_change"], float), np.array(counted["change"], float)
            edges = counted["low"] + counted["width"] * np.arange(len(no) + 1)
            last = _tail(no + yes)
            if drawn is None:
                name = w("m_probability" if e.calibration else "m_score").lower()
            add(
                "h_histogram",
                figures.histogram(w, edges[: last + 1], no[:last], self.threshold, yes[:last], name),
                w("c_histogram_classes") + " " + line,
            )
        elif drawn is not None:
            values, whole = drawn.sample()
            if values.size:
                top = 1.0 if g.probability is not None else max(float(np.percentile(values, 99.98)), self.threshold or -math.inf)
                low = 0.0 if g.probability is not None else float(values.min())
                if top > low:
                    counts, edges = np.histogram(values, COLUMNS, (low, top))
                    caption = [w("c_histogram" if self.threshold is not None else "c_histogram_bare"), line]
                    caption += [] if whole else [w("c_sampled", pixels=w.integer(values.size))]
                    add("h_histogram", figures.histogram(w, edges, counts, self.threshold, None, name), " ".join(filter(None, caption)))
        if score and score.get("curve"):
            curve, binary = score["curve"], e.binary or {}
            c = binary.get("confusion") or {}
            recall = value(binary, "recall")
            at_roc = (c["fp"] / (c["fp"] + c["tn"]), recall) if c and recall is not None and c["fp"] + c["tn"] else None
            at_pr = (recall, value(binary, "precision")) if recall is not None and value(binary, "precision") is not None else None
            if None not in curve["tpr"] and curve["tpr"]:
                if None not in curve["fpr"]:
                    add("h_roc", figures.roc(w, curve["fpr"], curve["tpr"], at_roc), w("c_roc", auroc=w.number(value(score, "auroc"))))
                add(
                    "h_pr",
                    figures.precision_recall(w, curve["tpr"], curve["precision"], value(score, "prevalence"), at_pr),
                    w("c_pr", ap=w.number(value(score, "ap"))),
                )
        bins = [
            (b["mean_probability"], b["observed"], b["count"])
            for b in ((e and e.calibration) or {}).get("reliability", [])
            if b.get("count")
        ]
        if bins:
            add("h_reliability", figures.reliability(w, bins), w("c_reliability"))
        return plots

    # ---------------------------------------------------------------------------------------------------------- areas

    def areas(self):
        w, g = self.words, self.given
        table, transitions = None, None
        if self.counts:
            blank = set() if g.labels is not None or g.change.nodata() is not None or 255 in self.map_legend else {255}
            values = [v for v in self._classes() if v not in blank]
            total = sum(self.counts.pixels[v] for v in values)
            whole = sum(self.counts.metres[v] for v in values) if self.counts.metres is not None else None
            if g.labels is not None or len(values) > 2:
                order = values if g.labels is not None else sorted(values, key=lambda v: -self.counts.pixels[v])
            else:
                order = values
            rows = []
            for v in order[:40]:
                metres = self.counts.metres[v] if whole is not None else None
                part = metres / whole if whole else self.counts.pixels[v] / max(1, total)
                entry = self.map_legend.get(v)
                rows.append(
                    Figure(
                        colour=entry.colour if entry and entry.shown else None,
                        name=self._name(v),
                        pixels=w.integer(self.counts.pixels[v]),
                        area=w.area(metres) if metres is not None else None,
                        share=w.percent(part),
                        part=round(100 * part, 2),
                    )
                )
            table = Figure(rows=rows, metres=whole is not None, text=w("areas_text" if self.counts.whole else "areas_sampled"))
            transitions = self._transitions(values)
        corrected = self._areas_corrected()
        if not (table and table.rows) and not corrected:
            return None
        warning = w("areas_warning") if not corrected else ""
        return {"kind": "areas", "table": table, "transitions": transitions, "corrected": corrected, "warning": warning}

    def _transitions(self, values):
        """A matrix of from-to areas, where the map holds codes of K classes."""
        w, g = self.words, self.given
        if g.change is None or max(values, default=0) < 2:
            return None
        names = [c["name"] for c in g.model.classes()] if g.model else []
        if not names:
            pairs = {v: self.map_legend[v].label.split(" → ") for v in self.map_legend if " → " in self.map_legend[v].label}
            k = math.isqrt(max(pairs, default=0))
            names = [pairs.get(1 + i * k + i, pairs.get(1 + i * k + (1 if i == 0 else 0), ["?"]))[0] for i in range(k)] if k > 1 else []
        k = len(names)
        if not 2 <= k <= 15 or max(values) > k * k:
            return None
        metres = self.counts.metres is not None
        take = (lambda v: self.counts.metres.get(v, 0) / 1e4) if metres else (lambda v: self.counts.pixels.get(v, 0))
        rows = [[take(1 + i * k + j) for j in range(k)] for i in range(k)]
        number = w.hectares if metres else w.integer
        return self._matrix(
            w("transitions"),
            names,
            rows,
            w("transitions_text", unit=w("unit_ha" if metres else "unit_pixels")),
            number,
            w("from_to_corner"),
            False,
        )

    def _areas_corrected(self):
        areas, w = self.evaluation and self.evaluation.areas, self.words
        if not areas:
            return None
        rows = []

        def told(estimate, show):
            if not estimate or estimate.get("value") is None:
                return "–"
            half = estimate.get("half_width")
            return show(estimate["value"]) + (" ± " + show(half) if half is not None else "")

        unit = areas.get("pixel_area_m2")
        for c in areas.get("classes", []):
            metres = c.get("area_m2")
            name = w.label({"0": "no change", "1": "change"}.get(c["name"], c["name"])) if len(areas["classes"]) == 2 else c["name"]
            rows.append(
                Figure(
                    name=name,
                    mapped=w.area(c["mapped_pixels"] * unit) if metres and unit else w.pixels(c["mapped_pixels"]),
                    estimated=told(metres, w.area) if metres else told(c.get("area_pixels"), w.pixels),
                    users=told(c.get("users_accuracy"), w.number),
                    producers=told(c.get("producers_accuracy"), w.number),
                )
            )
        return Figure(rows=rows, text=w("corrected_text", n=w.integer(areas.get("labelled", math.nan))))

    def season(self):
        g, w = self.given, self.words
        if not g.series:
            return None
        found = season.profiles(g.series, g.labels, g.validity, g.validity_kind)
        legend = {v: self.map_legend.get(v) or Entry(v, str(v), PALETTE[k % len(PALETTE)], True) for k, v in enumerate(found["classes"])}
        classes = {
            v: p for v, p in found["classes"].items() if not (v == 0 and 0 not in self.map_legend) and np.isfinite(p["median"]).any()
        }
        if not classes:
            return None
        src = figures.seasons(w, found["dates"], classes, legend, found["name"])
        text = w("season_text", name=found["name"])
        rows = [Figure(name=legend[v].label, colour=legend[v].colour, pixels=w.integer(p["pixels"])) for v, p in classes.items()]
        return {"kind": "season", "plot": Figure(src=src, alt=w("alt_plot", what=text)), "text": text, "rows": rows}

    # -------------------------------------------------------------------------------------------------------- objects

    def _object_area(self, pixels, metres=None):
        w = self.words
        if metres is None and self.objects.has_metres and pixels:
            whole = self.objects.area()
            metres = pixels * whole[1] / max(1, whole[0])
        return w.area(metres) if metres is not None else w.pixels(pixels)

    def change_objects(self):
        o, w = self.objects, self.words
        if not o:
            return None
        if o.count() == 0:
            return {"kind": "objects", "text": w("objects_none"), "groups": []}
        pixels, metres = o.area()
        text = w(
            "objects_text",
            n=w.integer(o.count()),
            area=w.area(metres) if metres is not None else w.pixels(pixels),
            median=self._object_area(float(np.median(o.areas()))),
        )
        groups = [Figure(title=w("o_largest"), text=w("o_largest_text"), objects=[self._object(f) for f in o.largest(OBJECTS)])]
        doubtful = o.doubtful(OBJECTS, self.threshold)
        if doubtful:
            groups.append(
                Figure(
                    title=w("o_doubtful"),
                    text=w("o_doubtful_text" if o.mean else "o_doubtful_pvalue"),
                    objects=[self._object(f) for f in doubtful],
                )
            )
        return {"kind": "objects", "text": text, "groups": groups}

    def _object(self, feature):
        o, w, r = self.objects, self.words, self.main
        geometry = feature.GetGeometryRef()
        window = vectors.window_of(geometry, r)
        number = o.get(feature, "id") or feature.GetFID()
        tiles = []
        for kind in ("date1", "date2"):
            raster = getattr(self.given, kind)
            if raster is not None:
                picture = pictures.enlarged(self.stretch[kind](raster.picture(self.rgb[kind], OBJECT, window)), 2 * OBJECT)
                picture = pictures.outlined(picture, window, vectors.rings(geometry), r)
                tiles.append(
                    Figure(
                        src=pictures.uri(picture, True),
                        alt=w("alt_object", id=number, what=w("m_" + kind)),
                        width=picture.shape[1],
                        height=picture.shape[0],
                    )
                )
        facts = [self._object_area(o.get(feature, "area_px"), o.get(feature, "area_m2"))]
        if o.get(feature, "from"):
            facts.insert(0, "%s → %s" % (w.label(o.get(feature, "from")), w.label(o.get(feature, "to"))))
        if o.mean and o.get(feature, o.mean) is not None:
            facts.append(w("o_mean", value=w.number(o.get(feature, o.mean), 3)))
        if o.get(feature, "pvalue") is not None:
            facts.append(w("o_p", value=w._local("%.2g" % float(o.get(feature, "pvalue")))))
        centre = geometry.PointOnSurface() if geometry.IsValid() else geometry.Centroid()
        x, y = centre.GetX(), centre.GetY()
        where = ["%s, %s" % (w.integer(x), w.integer(y))] if r.reference is None or not r.reference.IsGeographic() else []
        degrees = r.to_degrees(x, y)
        if degrees:
            where.append(w.degrees(*degrees))
        return Figure(name=w("o_object", id=number), tiles=tiles, facts=" · ".join(facts), where=where)

    # ------------------------------------------------------------------------------------------------- run and model

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


def default_bands(raster, model=None):
    """Numbers of the bands drawn red, green, blue: what the file says, what the model calls B4 B3 B2 (of Sentinel-2), else 3 2 1; grey for fewer than three."""
    if raster.count < 3:
        return [1]
    from osgeo import gdal

    wanted = [gdal.GCI_RedBand, gdal.GCI_GreenBand, gdal.GCI_BlueBand]
    told = [raster.band(k).GetColorInterpretation() for k in range(1, raster.count + 1)]
    if all(told.count(c) == 1 for c in wanted):
        return [told.index(c) + 1 for c in wanted]
    names = [season._plain(str(n)) for n in (model.bands() if model else [])]
    if len(names) == raster.count and {"B04", "B03", "B02", "B08"} <= set(names):
        return [names.index(n) + 1 for n in ("B04", "B03", "B02")]
    return [3, 2, 1]


def _tail(counts):
    """Columns of a histogram up to the last that matters: a lone outlier does not squeeze the rest."""
    total = counts.sum()
    beyond = np.flatnonzero(np.cumsum(counts) >= total * 0.9998)
    return int(min(len(counts), max(8, (beyond[0] if beyond.size else len(counts)) + 1)))


def _gradient(colours):
    import matplotlib

    stops = ["#%02x%02x%02x" % tuple(int(255 * v) for v in matplotlib.colormaps[colours](k / 8)[:3]) for k in range(9)]
    return "linear-gradient(to right, %s)" % ", ".join(stops)


def _lighter(colour):
    return "#%02x%02x%02x" % tuple(round(0.45 * v + 0.55 * 255) for v in rgb(colour))


def _short(values):
    text = [str(v).lower() if isinstance(v, bool) else "%g" % v if isinstance(v, float) else str(v) for v in values]
    return " ".join(text[:4]) + (" … (%d)" % len(text) if len(text) > 4 else "")


def _settings(text):
    import json

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
