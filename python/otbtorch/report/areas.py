"""Areas, transitions, change objects and the season: what is on the map, and how much."""

import math

import numpy as np

from . import figures, pictures, season, vectors
from .parts import Figure
from .rasters import PALETTE, Entry

#: Objects of either list, and the longest side of their pictures before they are enlarged.
OBJECTS, OBJECT = 6, 200


class Areas:
    """Counts of the map, estimates of a sample, objects, samples of a series."""

    def map_counts(self):
        raster = self.given.labels or self.given.change
        return raster.counts() if raster else None

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
            median=self._object_area(o.median()),
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
