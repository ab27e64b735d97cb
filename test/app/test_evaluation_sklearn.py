"""The figures of otbcli_ChangeEvaluation against scikit-learn's, where it is installed (python3-sklearn)."""

import numpy as np
import pytest
from evaluation import close, evaluate
from test_evaluation import maps  # noqa: F401 (a fixture)

metrics = pytest.importorskip("sklearn.metrics", reason="no scikit-learn")


def test_decisions(maps, tmp_path):  # noqa: F811
    found = evaluate(tmp_path, **maps.pair())["pooled"]["metrics"]["binary"]["values"]
    truth, said = maps.truth[maps.good], maps.decision[maps.good]
    expected = dict(
        precision=metrics.precision_score(truth, said),
        recall=metrics.recall_score(truth, said),
        f1=metrics.f1_score(truth, said),
        iou=metrics.jaccard_score(truth, said),
        oa=metrics.accuracy_score(truth, said),
        kappa=metrics.cohen_kappa_score(truth, said),
        mf1=metrics.f1_score(truth, said, average="macro"),
        miou=metrics.jaccard_score(truth, said, average="macro"),
    )
    close(found, expected)


@pytest.mark.parametrize("levels", [None, 200])
def test_scores(maps, tmp_path, levels):  # noqa: F811
    from conftest import write

    p = maps.p if levels is None else (np.round(maps.p * levels) / levels).astype(np.float32)
    write(tmp_path / "p.tif", p)
    found = evaluate(tmp_path, mode="score", probability=1, **maps.pair(in_=tmp_path / "p.tif"))["pooled"]["metrics"]
    good = maps.valid & ~maps.unlabelled
    truth, p = maps.truth[good], p[good].astype(np.float64)
    expected = dict(auroc=metrics.roc_auc_score(truth, p), ap=metrics.average_precision_score(truth, p))
    # Exact for few values; else of bins that hold a few pixels each.
    close(found["score"]["values"], expected, 1e-12 if levels else 1e-4)
    close(found["calibration"]["values"], dict(brier=metrics.brier_score_loss(truth, p)))


def test_dates(maps, tmp_path):  # noqa: F811
    f = maps.files
    found = evaluate(
        tmp_path, mode="semantic", classes=[1, 2, 3, 4], draws=0, incoding="full", refcoding="full",
        in_=f["said0"], in2=f["said1"], ref=f["class0"], ref2=f["class1"],
    )["pooled"]["metrics"]["semantic"]["dates"]
    for date, said, truth in zip(found, maps.said, maps.classes):
        expected = dict(
            kappa=metrics.cohen_kappa_score(truth.ravel(), said.ravel()),
            miou=metrics.jaccard_score(truth.ravel(), said.ravel(), average="macro"),
        )
        close(date["values"], expected)
