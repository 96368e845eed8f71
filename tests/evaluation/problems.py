"""Small detection problems and what the reference implementations say of them."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gam_yolo.evaluation import Detections, GroundTruth, coco_metrics, match_coco, match_voc, over_classes, voc_metrics


@dataclass(frozen=True)
class Problem:
    """Annotations and results as COCO files have them, over images 1 to n and classes 1 to k."""

    n_images: int
    n_classes: int
    annotations: list[dict[str, Any]]
    results: list[dict[str, Any]]

    @property
    def truth(self) -> GroundTruth:
        def column(key: str, kind: type) -> np.ndarray:
            return np.array([a[key] for a in self.annotations], dtype=kind)

        return GroundTruth(
            source="problem",
            ids=tuple(range(1, self.n_images + 1)),
            files=tuple(f"{i}.jpg" for i in range(1, self.n_images + 1)),
            sizes=np.full((self.n_images, 2), 1000.0),
            classes=tuple(f"class {k}" for k in range(1, self.n_classes + 1)),
            category_ids=tuple(range(1, self.n_classes + 1)),
            image=column("image_id", int) - 1,
            label=column("category_id", int) - 1,
            box=column("bbox", float).reshape(-1, 4),
            area=column("area", float),
            crowd=column("iscrowd", bool),
            difficult=column("difficult", bool),
        )

    @property
    def detections(self) -> Detections:
        def column(key: str, kind: type) -> np.ndarray:
            return np.array([r[key] for r in self.results], dtype=kind)

        return Detections(
            source="problem",
            image=column("image_id", int) - 1,
            label=column("category_id", int) - 1,
            box=column("bbox", float).reshape(-1, 4),
            score=column("score", float),
        )

    def repeated(self, times: list[int]) -> Problem:
        """The dataset in which image i really occurs `times[i - 1]` times, copies side by side under new ids."""
        new_ids = np.split(np.arange(1, sum(times) + 1), np.cumsum(times)[:-1])
        copies = {i: ids.tolist() for i, ids in enumerate(new_ids, 1)}
        annotations = [{**a, "image_id": new} for a in self.annotations for new in copies[a["image_id"]]]
        return Problem(
            n_images=sum(times),
            n_classes=self.n_classes,
            annotations=[{**a, "id": n} for n, a in enumerate(annotations, 1)],
            results=[{**r, "image_id": new} for r in self.results for new in copies[r["image_id"]]],
        )


@st.composite
def problems(draw: st.DrawFn, distinct_scores: bool = False) -> Problem:
    """Draw a problem with crowds, empty images and classes, ties, and images beyond COCO's 100 detections."""
    n_images, n_classes = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    side = st.integers(1, 12).map(
        lambda v: 10.0 * v
    )  # on a coarse grid, so that overlaps tie and sizes meet the bounds
    box = st.tuples(st.integers(0, 8).map(lambda v: 10.0 * v), st.integers(0, 8).map(lambda v: 10.0 * v), side, side)
    image, label = st.integers(1, n_images), st.integers(1, n_classes)
    annotations = [
        {
            "id": n,
            "image_id": i,
            "category_id": k,
            "bbox": list(b),
            "area": b[2] * b[3] * full,
            "iscrowd": int(crowd),
            "difficult": hard,
        }
        for n, (i, k, b, full, crowd, hard) in enumerate(
            draw(
                st.lists(
                    st.tuples(
                        image,
                        label,
                        box,
                        st.sampled_from([1.0, 0.5]),
                        st.integers(0, 5).map(lambda v: v == 0),
                        st.booleans(),
                    ),
                    max_size=12,
                )
            ),
            1,
        )
    ]
    score = st.integers(0, 10).map(lambda v: v / 10)
    shift = st.sampled_from([0.0, 0.0, 1.0, 3.0, 5.0])
    near = st.tuples(st.integers(0, max(len(annotations) - 1, 0)), shift, score)
    far = st.tuples(image, label, box, score)
    results = [
        {"image_id": i, "category_id": k, "bbox": list(b), "score": s}
        for i, k, b, s in draw(st.lists(far, max_size=10))
    ]
    for index, dx, s in draw(st.lists(near, max_size=25)) if annotations else []:
        a = annotations[index]
        x, y, w, h = a["bbox"]
        results.append({**{k: a[k] for k in ("image_id", "category_id")}, "bbox": [x + dx, y, w, h], "score": s})
    results *= draw(st.sampled_from([1, 1, 1, 9]))  # nine times over, some image and class has more than a hundred
    results = draw(st.permutations(results)) if len(results) < 40 else results
    if distinct_scores:
        results = [{**r, "score": (n + 1) / (len(results) + 1)} for n, r in enumerate(results)]
    return Problem(n_images, n_classes, annotations, results)


def pycocotools_stats(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """What pycocotools says: its twelve numbers (NaN for its -1), and AP of each class."""
    truth = {
        "images": [{"id": i} for i in range(1, problem.n_images + 1)],
        "categories": [{"id": k} for k in range(1, problem.n_classes + 1)],
        "annotations": [dict(a) for a in problem.annotations],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        results = COCO()
        results.dataset = {**truth, "annotations": []}
        results.createIndex()
        if problem.results:
            results = coco.loadRes([dict(r) for r in problem.results])
        evaluation = COCOeval(coco, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    per_class = precision.mean(axis=(0, 1))
    return np.where(evaluation.stats < 0, np.nan, evaluation.stats), np.where(per_class < 0, np.nan, per_class)


def coco_stats(problem: Problem, weights: list[int] | None = None, columns: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """What the evaluator says of the same, under image weights, from the last of a number of equal replicates."""
    image_weights = np.ones(problem.n_images) if weights is None else np.array(weights, dtype=float)
    table = match_coco(problem.truth, problem.detections)
    per_class = coco_metrics(table, np.repeat(image_weights[:, None], columns, axis=1))[..., -1]
    return over_classes(per_class), per_class[:, 0]


def voc_stats(problem: Problem) -> np.ndarray:
    """The evaluator's VOC metrics of each class, shape (classes, 2)."""
    table = match_voc(problem.truth, problem.detections)
    return voc_metrics(table, np.ones((problem.n_images, 1)))[..., 0]


def voc_by_the_book(problem: Problem, label: int) -> tuple[float, float]:
    """VOC's two APs of a class, straight from the development kit's description, one detection at a time."""
    objects = [a for a in problem.annotations if a["category_id"] == label]
    counted = sum(not (o["difficult"] or o["iscrowd"]) for o in objects)
    if not counted:
        return float("nan"), float("nan")
    results = [r for r in problem.results if r["category_id"] == label]
    taken: set[int] = set()
    tp = fp = 0
    precision, recall = [], []
    for r in sorted(results, key=lambda r: (-r["score"], r["image_id"])):
        best, best_overlap = None, -1.0
        for o in objects:
            if o["image_id"] == r["image_id"] and overlap(o["bbox"], r["bbox"]) > best_overlap:
                best, best_overlap = o, overlap(o["bbox"], r["bbox"])
        if best is not None and best_overlap >= 0.5:
            if best["difficult"] or best["iscrowd"]:
                continue
            hit = best["id"] not in taken
            taken.add(best["id"])
        else:
            hit = False
        tp, fp = tp + hit, fp + (not hit)
        precision.append(tp / (tp + fp))
        recall.append(tp / counted)
    return voc_ap(recall, precision)


def voc_ap(recall: list[float], precision: list[float]) -> tuple[float, float]:
    """The average precision of the kit of 2007 (`VOCevaldet.m`) and of those since 2010 (`VOCap.m`)."""
    eleven = sum(
        max((p for p, r in zip(precision, recall, strict=True) if r >= t), default=0.0)
        for t in matlab_range(0.0, 0.1, 1.0)
    )
    area, last = 0.0, 0.0
    for r in sorted(set(recall)):
        area += (r - last) * max(p for p, q in zip(precision, recall, strict=True) if q >= r)
        last = r
    return eleven / 11, area


def matlab_range(first: float, step: float, last: float) -> list[float]:
    """MATLAB's `first:step:last`: the first half is counted up from `first`, the second half down from `last`."""
    n = round((last - first) / step)
    return [first + k * step if 2 * k <= n else last - (n - k) * step for k in range(n + 1)]


def overlap(a: list[float], b: list[float]) -> float:
    """Intersection over union as the kit has it: pixels counted from 1, both ends belonging to the box."""
    (al, at, ar, ab), (bl, bt, br, bb) = ((x + 1, y + 1, x + w, y + h) for x, y, w, h in (a, b))
    width, height = min(ar, br) - max(al, bl) + 1, min(ab, bb) - max(at, bt) + 1
    if width <= 0 or height <= 0:
        return 0.0
    size = (ar - al + 1) * (ab - at + 1) + (br - bl + 1) * (bb - bt + 1)
    return width * height / (size - width * height)
