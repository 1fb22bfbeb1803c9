"""Isolation Forest (Liu, Ting & Zhou, ICDM 2008), a baseline.

Few random splits isolate an anomaly from the other vectors. With h(x) the path length of x in a tree and c the expected
path length (eq. 1), the score is, without unit,

    s(x) = 2^(-mean over trees of h(x) / c)   (eq. 2)

scikit-learn grows the trees. They are stored as plain arrays instead of a pickle, and torch evaluates them in blocks.
Scores equal `-IsolationForest.score_samples`. A missing entry counts as the mean of normal values.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from cloud.methods.base import Analyzer, AnalyzerOutput, cpu_state, from_patch_scores, in_blocks
from cloud.methods.features import Features
from cloud.methods.fit_context import FitContext
from cloud.methods.reference import MAX_REFERENCE
from shared.diffusion.perturbation import subsample
from shared.diffusion.training import Progress

TREES = 100
ROWS_PER_TREE = 256  # normal vectors that each tree is grown on
BLOCK_ROWS = 8192
EULER_GAMMA = 0.5772156649015329


class IsolationForest(Analyzer):
    """Isolation Forest of 100 trees of 256 rows each; scores in (0, 1), 0.5 for typical data.

    The trees are stored in arrays of shape (trees, nodes), padded to the largest tree: `feature` int64, `threshold`
    float64, `left` and `right` int64 (a leaf points to itself) and `path_length` float64 (that of the leaf).
    """

    name: ClassVar[str] = "isolation_forest"
    is_quick: ClassVar[bool] = True

    def __init__(self, trees: Mapping[str, Tensor] | None = None):
        self._trees = dict(trees or {})

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Grow the trees on at most MAX_REFERENCE normal vectors."""
        from sklearn.ensemble import IsolationForest as SklearnForest  # slow to import: as long as all of Vedette

        generator = context.generator(self.name)
        normals = subsample(features.flat_visible, MAX_REFERENCE, generator).cpu().numpy()
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        forest = SklearnForest(n_estimators=TREES, max_samples=min(ROWS_PER_TREE, len(normals)), random_state=seed)
        self._trees = _as_arrays(forest.fit(normals))
        self.to(features.vectors.device)
        if progress is not None:
            progress(1.0)

    def score(self, features: Features) -> AnalyzerOutput:
        """Return anomaly scores in (0, 1) (eq. 2)."""
        scores = in_blocks(self._scores, features.flat_visible, BLOCK_ROWS)
        return from_patch_scores(scores.float(), features)

    def state(self) -> dict[str, Tensor]:
        """Return the trees as arrays."""
        return cpu_state(self._trees)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the analyzer with the stored trees."""
        names = ("feature", "threshold", "left", "right", "path_length", "expected_path_length")
        return cls({name: state[name] for name in names})

    def to(self, device: torch.device) -> Self:
        """Move the trees to a device."""
        self._trees = {name: value.to(device) for name, value in self._trees.items()}
        return self

    def _scores(self, vectors: Tensor) -> Tensor:
        """Return scores (rows,) float64 of vectors (rows, dim); each step descends one level in all trees."""
        feature, threshold = self._trees["feature"], self._trees["threshold"]
        tree = torch.arange(len(feature), device=feature.device)
        node = torch.zeros((len(vectors), len(feature)), dtype=torch.int64, device=vectors.device)
        while True:
            goes_left = vectors.gather(1, feature[tree, node]) <= threshold[tree, node]
            children = torch.where(goes_left, self._trees["left"][tree, node], self._trees["right"][tree, node])
            if torch.equal(children, node):
                break
            node = children
        lengths = self._trees["path_length"][tree, node].mean(dim=1)
        return torch.pow(2.0, -lengths / self._trees["expected_path_length"])


def expected_path_length(rows: Any) -> Any:
    """Return the mean length of unsuccessful searches in a binary tree of `rows` vectors (eq. 1)."""
    count = np.maximum(np.asarray(rows, dtype=np.float64), 2.0)
    length = 2.0 * (np.log(count - 1.0) + EULER_GAMMA) - 2.0 * (count - 1.0) / count
    return np.select([np.asarray(rows) <= 1, np.asarray(rows) == 2], [0.0, 1.0], length)


def _as_arrays(forest: Any) -> dict[str, Tensor]:
    """Return the trees of a fitted scikit-learn forest as arrays, padded to the largest tree."""
    nodes = max(tree.tree_.node_count for tree in forest.estimators_)
    shape = (len(forest.estimators_), nodes)
    feature, threshold = np.zeros(shape, dtype=np.int64), np.full(shape, np.inf)
    children = np.tile(np.arange(nodes), (2, shape[0], 1))
    path_length = np.zeros(shape)
    for index, (estimator, columns) in enumerate(zip(forest.estimators_, forest.estimators_features_, strict=True)):
        tree = estimator.tree_
        inner = np.flatnonzero(tree.children_left >= 0)
        feature[index, inner] = np.asarray(columns)[tree.feature[inner]]
        threshold[index, inner] = tree.threshold[inner]
        children[0, index, inner], children[1, index, inner] = tree.children_left[inner], tree.children_right[inner]
        depth = np.zeros(tree.node_count)
        for parent in inner:  # scikit-learn numbers parents before their children
            depth[[tree.children_left[parent], tree.children_right[parent]]] = depth[parent] + 1.0
        path_length[index, : tree.node_count] = depth + expected_path_length(tree.n_node_samples)
    arrays = {"feature": feature, "threshold": threshold, "left": children[0], "right": children[1]}
    expected = np.maximum(expected_path_length([forest.max_samples_]), 1e-9)
    tensors = {**arrays, "path_length": path_length, "expected_path_length": expected}
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in tensors.items()}
