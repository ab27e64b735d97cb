"""Plots as SVG inside the page: nothing but lines, no fonts needed."""

import base64
import io

import numpy as np

INK, SOFT, ACCENT, SECOND = "#222222", "#8A8A8A", "#1B5E8C", "#D55E00"


def _start(words, size=(4.6, 3.45)):
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "otbtorch"
    matplotlib.rcParams["svg.fonttype"] = "path"
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(SOFT)
    axes.tick_params(colors=INK, labelsize=9, color=SOFT)
    axes.grid(True, color="#E6E6E6", linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _numbers(axes, words, which="xy"):
    from matplotlib.ticker import FuncFormatter

    for axis in which:
        getattr(axes, axis + "axis").set_major_formatter(FuncFormatter(lambda v, _: words.tick(v)))


def _end(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _labels(axes, x, y):
    axes.set_xlabel(x, fontsize=9.5, color=INK)
    axes.set_ylabel(y, fontsize=9.5, color=INK)


def histogram(words, edges, counts, threshold=None, changed=None, name="", log=True):
    """Counts of a score, on a logarithmic scale; `changed` are those of pixels that the reference calls change."""
    figure, axes = _start(words, (9.4, 3.0))
    if changed is None:
        axes.stairs(counts, edges, fill=True, color=ACCENT, alpha=0.85, linewidth=0)
    else:
        axes.stairs(counts, edges, fill=True, color="#B9C7D1", linewidth=0, label=words("legend_no_change"))
        axes.stairs(changed, edges, color=SECOND, linewidth=1.6, label=words("legend_change"))
        axes.legend(frameon=False, fontsize=9)
    if threshold is not None and edges[0] <= threshold <= edges[-1]:
        axes.axvline(threshold, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        right = threshold > 0.6 * edges[-1] + 0.4 * edges[0]
        axes.annotate(
            words("threshold_at", value=words.number(threshold, 3)),
            (threshold, 0.9),
            xycoords=("data", "axes fraction"),
            xytext=(-5 if right else 5, 0),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize=9,
            color=INK,
        )
    if log:
        axes.set_yscale("log")
        axes.set_ylim(0.7, 6 * max(1, np.max(counts), 0 if changed is None else np.max(changed)))  # room for the label
        _numbers(axes, words, "x")
        from matplotlib.ticker import NullFormatter

        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        _numbers(axes, words)
    axes.set_xlim(edges[0], edges[-1])
    _labels(axes, name, words("axis_pixels"))
    return _end(figure)


def roc(words, fpr, tpr, at=None):
    """The receiver operating characteristic; `at` is the (false positive rate, true positive rate) of the map."""
    figure, axes = _start(words, (3.6, 3.45))
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot([0] + fpr, [0] + tpr, color=ACCENT, linewidth=2, solid_joinstyle="round")
    if at:
        axes.plot(*at, "o", color=SECOND, markersize=7, markeredgecolor="white")
    _square(axes, words, words("axis_fpr"), words("axis_tpr"))
    return _end(figure)


def precision_recall(words, recall, precision, prevalence=None, at=None):
    figure, axes = _start(words, (3.6, 3.45))
    if prevalence is not None:
        axes.axhline(prevalence, color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(recall, precision, color=ACCENT, linewidth=2, solid_joinstyle="round")
    if at:
        axes.plot(*at, "o", color=SECOND, markersize=7, markeredgecolor="white")
    _square(axes, words, words("axis_recall"), words("axis_precision"))
    return _end(figure)


def reliability(words, bins):
    """[(mean probability, observed share, count)]: points as large as their bins."""
    figure, axes = _start(words, (3.6, 3.45))
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
    p, observed, count = (np.array(v, float) for v in zip(*bins))
    axes.plot(p, observed, color=ACCENT, linewidth=1.4)
    share = np.log10(np.maximum(count, 1))
    axes.scatter(p, observed, s=14 + 70 * share / max(share.max(), 1e-9), color=ACCENT, edgecolor="white", linewidth=0.8, zorder=3)
    _square(axes, words, words("axis_predicted"), words("axis_observed"))
    return _end(figure)


def _square(axes, words, x, y):
    axes.set_xlim(-0.015, 1.015)
    axes.set_ylim(-0.015, 1.015)
    axes.set_aspect("equal")
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    _numbers(axes, words)
    _labels(axes, x, y)


def seasons(words, dates, profiles, legend, name):
    """Median and quartiles of an index by class through the dates."""
    figure, axes = _start(words, (9.4, 3.5))
    styles = ["-", "--", "-.", ":"]
    from matplotlib.dates import AutoDateLocator, DateFormatter

    for k, (label, p) in enumerate(profiles.items()):
        entry = legend[label]
        good = np.isfinite(p["median"])
        when = [d for d, g in zip(dates, good) if g]
        axes.fill_between(when, p["low"][good], p["high"][good], color=entry.colour, alpha=0.18, linewidth=0)
        axes.plot(
            when,
            p["median"][good],
            color=entry.colour,
            linewidth=2.2,
            linestyle=styles[k // 7 % 4],
            marker="o",
            markersize=3,
            label=entry.label,
        )
    axes.xaxis.set_major_locator(AutoDateLocator(minticks=5, maxticks=13))
    axes.xaxis.set_major_formatter(DateFormatter(words("date_axis")))
    _numbers(axes, words, "y")
    axes.legend(frameon=False, fontsize=9, ncol=min(4, len(profiles)), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    _labels(axes, "", name)
    return _end(figure)
