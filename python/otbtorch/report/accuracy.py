"""How good the map is: figures, curves, matrices."""

import math

import numpy as np

from . import evaluation as evaluations
from . import figures
from .evaluation import value
from .parts import Figure
from .words import WORDS

COLUMNS = 100  # of a histogram that is made here


class Accuracy:
    """Tables, plots and matrices of an evaluation; the histogram also without one."""

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
        return {
            "kind": "accuracy",
            "heading": w("s_accuracy" if e else "h_histogram"),
            "tables": tables,
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


def _tail(counts):
    """Columns of a histogram up to the last that matters: a lone outlier does not squeeze the rest."""
    total = counts.sum()
    beyond = np.flatnonzero(np.cumsum(counts) >= total * 0.9998)
    return int(min(len(counts), max(8, (beyond[0] if beyond.size else len(counts)) + 1)))
