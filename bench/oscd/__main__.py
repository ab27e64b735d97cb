"""The OSCD table of the two change applications, made by ChangeEvaluation: per city and pooled.

``python3 bench/oscd --data <oscd> [--siamese model.pt] [--folds f.json] [--likelihood-model model.pt]``

Maps every city with ChangeLikelihood (and with SiameseCD, given a model), measures decisions, scores and
probabilities with otbcli_ChangeEvaluation in one run each, and checks every figure against NumPy on the
written rasters (``--no-check`` leaves that out). Folds are a JSON file: a model for each city, one that has
not seen it. Maps and evaluations stay in ``--out``; a map that is there is not made again.
"""

import argparse
import json
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "change"))
import common  # noqa: E402

SENTINEL2 = "B02,B03,B04,B08"


def map_city(options, city, application, model, folder):
    """Files of decision and score of a city."""
    names = options.bands.split(",")
    decision = os.path.join(folder, "%s_change.tif" % city)
    score = os.path.join(folder, "%s_score.tif" % city)
    if not (os.path.exists(decision) and os.path.exists(score)):
        words = ["-in1", *common.bands(options.data, city, 1, names), "-in2", *common.bands(options.data, city, 2, names)]
        words += ["-align", "resample"] + (["-model", model] if model else [])
        if application == "SiameseCD":
            words += ["-out", decision, "-proba", score] + options.siamese_options.split()
        else:
            words += ["-out", score, "-change", decision] + options.likelihood_options.split()
        common.run(application, *words)
    return decision, score


def evaluate(options, maps, references, folder, name, *words):
    """The JSON of ChangeEvaluation over all cities."""
    out = os.path.join(folder, name + ".json")
    command = ["-in", *maps, "-ref", *references, "-refpos", 2, "-refneg", 1, "-block", options.block, "-out", out]
    common.run("ChangeEvaluation", *command, "-csv", os.path.join(folder, name + ".csv"), *words)
    return json.load(open(out))


def check(options, names, maps, found, kind):
    """Compares each pair and the pool with NumPy on the rasters; returns the largest difference."""
    worst, all_values, all_truth = 0.0, [], []
    reports = list(found["pairs"]) + [found["pooled"]]
    for k, report in enumerate(reports):
        if k < len(names):
            values, truth = common.read(maps[k]), common.labels(options.data, names[k])
            valid = values != {"decision": 255, "score": -9999.0, "probability": -1.0}[kind]
            values, truth = values[valid], truth[valid]
            all_values.append(values)
            all_truth.append(truth)
        else:
            values, truth = np.concatenate(all_values), np.concatenate(all_truth)
        metrics = report["metrics"]
        if kind == "decision":
            said = values == 1
            tp, fp, fn = (np.count_nonzero(x) for x in (said & truth, said & ~truth, ~said & truth))
            counts = metrics["binary"]["confusion"]
            assert (tp, fp, fn) == (counts["tp"], counts["fp"], counts["fn"])
            pairs = [(metrics["binary"]["values"]["f1"], common.f1(said, truth))]
        else:
            auroc, ap, best = common.figures(values, truth)
            figures = metrics["score"]["values"]
            pairs = [(figures["auroc"], auroc), (figures["ap"], ap), (figures["best_f1"], best)]
            if kind == "probability":
                brier = np.mean((values.astype(np.float64) - truth) ** 2)
                pairs.append((metrics["calibration"]["values"]["brier"], brier))
        worst = max([worst] + [abs(a - b) for a, b in pairs])
    return worst


def figure(value, interval=None):
    if value is None:
        return "-"
    return "%.3f" % value + (" (%.3f to %.3f)" % tuple(interval) if interval else "")


def table(names, decisions, scores):
    """Rows in Markdown: each city, their mean, all pixels together."""
    columns = (("binary", "precision"), ("binary", "recall"), ("binary", "f1"), ("binary", "iou"), ("binary", "kappa"))
    ranks = (("score", "auroc"), ("score", "ap"), ("score", "fpr95"), ("score", "best_f1"))
    print("| | precision | recall | F1 | IoU | kappa | AUROC | AP | FPR95 | best F1 |\n|---|" + "---|" * 9)
    rows = []
    for k, name in enumerate(names):
        row = [decisions["pairs"][k]["metrics"][g]["values"][f] for g, f in columns]
        row += [scores["pairs"][k]["metrics"][g]["values"][f] for g, f in ranks]
        rows.append(row)
        print("| %s | " % name + " | ".join(map(figure, row)) + " |")
    means = [np.mean([r[c] for r in rows if r[c] is not None]) for c in range(len(rows[0]))]
    print("| mean of cities | " + " | ".join(map(figure, means)) + " |")
    pooled = []
    for found, which in ((decisions, columns), (scores, ranks)):
        for group, name in which:
            part = found["pooled"]["metrics"][group]
            pooled.append(figure(part["values"][name], part["intervals"].get(name)))
    print("| **pooled** | " + " | ".join(pooled) + " |\n", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.path.join(common.ROOT, "..", "shared", "data", "oscd"))
    parser.add_argument("--out", default="oscd-table", help="folder of the maps and evaluations")
    parser.add_argument("--siamese", help="model of SiameseCD; without it (and without folds) that half is left out")
    parser.add_argument("--folds", help="JSON: {city: model of SiameseCD that has not seen it}")
    parser.add_argument("--likelihood-model", help="model of ChangeLikelihood; none: -estimator regress")
    parser.add_argument("--likelihood-folds", help="JSON: {city: model of ChangeLikelihood that has not seen it}")
    parser.add_argument("--likelihood-options", default="", help="more words for ChangeLikelihood")
    parser.add_argument("--siamese-options", default="", help="more words for SiameseCD")
    parser.add_argument("--bands", default=SENTINEL2)
    parser.add_argument("--cities", help="only these, with commas between")
    parser.add_argument("--block", type=int, default=64, help="side of the blocks of the bootstrap, pixels")
    parser.add_argument("--no-check", action="store_true")
    options = parser.parse_args()
    names = options.cities.split(",") if options.cities else common.cities(options.data)
    references = [os.path.join(options.data, "labels", c, "cm", c + "-cm.tif") for c in names]
    folds = json.load(open(options.folds)) if options.folds else {}
    ours = json.load(open(options.likelihood_folds)) if options.likelihood_folds else {}
    runs = [("ChangeLikelihood", {c: ours.get(c, options.likelihood_model) for c in names})]
    if options.siamese or folds:
        missing = [c for c in names if not folds.get(c, options.siamese)]
        if missing:
            raise SystemExit("no model for " + ", ".join(missing))
        runs.append(("SiameseCD", {c: folds.get(c, options.siamese) for c in names}))
    for application, models in runs:
        folder = os.path.join(options.out, application)
        os.makedirs(folder, exist_ok=True)
        maps = [map_city(options, c, application, models[c], folder) for c in names]
        decision, score = [m[0] for m in maps], [m[1] for m in maps]
        probability = application == "SiameseCD"
        decisions = evaluate(options, decision, references, folder, "decisions")
        scores = evaluate(options, score, references, folder, "scores", "-mode", "score", *(["-probability", 1] if probability else []))
        print("### %s\n" % application)
        table(names, decisions, scores)
        if probability:
            values = scores["pooled"]["metrics"]["calibration"]["values"]
            print("Calibration, pooled: " + ", ".join("%s %s" % (k, figure(v)) for k, v in values.items()) + "\n")
        if not options.no_check:
            worst = check(options, names, decision, decisions, "decision")
            ranks = check(options, names, score, scores, "probability" if probability else "score")
            print("Against NumPy on the rasters: decisions differ by %.1g at most, scores by %.1g.\n" % (worst, ranks), flush=True)


if __name__ == "__main__":
    main()
