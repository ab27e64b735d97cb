"""Helpers of the end-to-end tests of otbcli_ChangeEvaluation: runs, and the metrics again in NumPy."""

import json
import subprocess

import numpy as np
from conftest import BIN, Run, command, environment
from scipy import ndimage

LAUNCHER = BIN / "otbcli_ChangeEvaluation"


def run(*words, threads=2, timeout=120, cwd=None, **parameters):
    """Runs the application to its end; ``in_`` stands for the parameter in."""
    parameters = {k.rstrip("_"): v for k, v in parameters.items()}
    done = subprocess.run(
        [str(LAUNCHER)] + [str(w) for w in words] + command(**parameters),
        env=environment(threads),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
    )
    return Run(done.returncode, done.stdout.decode("utf-8", "replace"))


def evaluate(folder, **parameters):
    """The JSON of a run that must succeed."""
    out = folder / "out.json"
    run(out=out, **parameters).ok()
    return json.loads(out.read_text())


def binary(predicted, reference):
    """Figures of two boolean arrays."""
    tp = np.count_nonzero(predicted & reference)
    fp = np.count_nonzero(predicted & ~reference)
    fn = np.count_nonzero(~predicted & reference)
    tn = np.count_nonzero(~predicted & ~reference)
    n = tp + fp + fn + tn
    po = (tp + tn) / n
    pe = ((tp + fp) * (tp + fn) + (fn + tn) * (fp + tn)) / n**2
    f1, f0 = 2 * tp / (2 * tp + fp + fn), 2 * tn / (2 * tn + fp + fn)
    iou, iou0 = tp / (tp + fp + fn), tn / (tn + fp + fn)
    return dict(
        precision=tp / (tp + fp),
        recall=tp / (tp + fn),
        f1=f1,
        iou=iou,
        oa=po,
        kappa=(po - pe) / (1 - pe),
        mf1=(f1 + f0) / 2,
        miou=(iou + iou0) / 2,
    )


def ranking(score, truth):
    """AUROC, average precision, FPR95, best F1, over all thresholds; ties count as one."""
    score = score.astype(np.float64)
    order = np.argsort(-score, kind="stable")
    hits, values = truth[order], score[order]
    last = np.r_[values[1:] != values[:-1], True]
    tp, fp = np.cumsum(hits)[last].astype(float), np.cumsum(~hits)[last].astype(float)
    tpr, fpr = tp / tp[-1], fp / fp[-1]
    return dict(
        auroc=np.trapz(np.r_[0, tpr], np.r_[0, fpr]),
        ap=np.sum(np.diff(np.r_[0, tpr]) * tp / (tp + fp)),
        fpr95=fpr[np.argmax(tpr >= 0.95)],
        best_f1=np.max(2 * tp / (tp + fp + tp[-1])),
    )


def calibration(p, truth, bins=15):
    def error(promised, hit):
        which = np.minimum((promised * bins).astype(int), bins - 1)
        return sum(abs(hit[which == b].sum() - promised[which == b].sum()) for b in range(bins)) / p.size

    p = p.astype(np.float64)
    said = p >= 0.5
    change, no = error(p, truth), error(1 - p, ~truth)
    return dict(
        ece=error(np.where(said, p, 1 - p), said == truth),
        ece_change=change,
        ece_no_change=no,
        ece_classwise=(change + no) / 2,
        brier=np.mean((p - truth) ** 2),
    )


def histogram(a, b, n):
    """Rows predicted, columns reference."""
    return np.bincount(a.ravel() * n + b.ravel(), minlength=n * n).reshape(n, n)


def semantic(h):
    """SeK, Fscd, mIoU, Score of a histogram whose class 0 is no change, step by step as the definitions go."""
    h = h.astype(float)
    changed = h.copy()
    changed[0, 0] = 0
    n = changed.sum()
    po, pe = np.trace(changed) / n, np.sum(changed.sum(0) * changed.sum(1)) / n**2
    kappa = (po - pe) / (1 - pe)
    iou1 = h[1:, 1:].sum() / (h.sum() - h[0, 0])
    iou0 = h[0, 0] / (h[0].sum() + h[:, 0].sum() - h[0, 0])
    right = np.trace(h[1:, 1:])
    precision, recall = right / h[1:].sum(), right / h[:, 1:].sum()
    sek, miou = kappa * np.exp(iou1) / np.e, (iou0 + iou1) / 2
    return dict(sek=sek, miou=miou, score=0.3 * miou + 0.7 * sek, fscd=2 * precision * recall / (precision + recall))


def objects(predicted, reference, eight=False, minimum=0, iou=0.5):
    """Objects of either side, and how many of the reference have a match."""
    structure = np.ones((3, 3)) if eight else None

    def label(x):
        labels, n = ndimage.label(x, structure)
        sizes = np.bincount(labels.ravel(), minlength=n + 1)
        kept = [k for k in range(1, n + 1) if sizes[k] >= minimum]
        return labels, sizes, kept

    a, size_a, kept_a = label(predicted)
    b, size_b, kept_b = label(reference)
    matched = 0
    for k in kept_b:
        other, common = np.unique(a[b == k], return_counts=True)
        matched += any(
            o in kept_a and c / (size_a[o] + size_b[k] - c) >= iou for o, c in zip(other, common) if o > 0
        )
    return len(kept_a), len(kept_b), matched


def close(found, expected, tolerance=1e-12):
    """Do the figures of a JSON equal those of a dict?"""
    for name, value in expected.items():
        assert found[name] is not None, name
        assert abs(found[name] - value) <= tolerance, (name, found[name], value)
