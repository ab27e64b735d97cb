"""The maps of a report: overviews, places, legends."""

import re

import numpy as np

from . import pictures, season, vectors
from .parts import Figure
from .rasters import ERRORS, PALETTE, Entry, rgb

#: Longest side, in pixels, of an overview and of a place.
OVERVIEW, PLACE = 760, 256


class Maps:
    """Pictures of dates and maps, of the whole and of places."""

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


def _gradient(colours):
    import matplotlib

    stops = ["#%02x%02x%02x" % tuple(int(255 * v) for v in matplotlib.colormaps[colours](k / 8)[:3]) for k in range(9)]
    return "linear-gradient(to right, %s)" % ", ".join(stops)


def _lighter(colour):
    return "#%02x%02x%02x" % tuple(round(0.45 * v + 0.55 * 255) for v in rgb(colour))
