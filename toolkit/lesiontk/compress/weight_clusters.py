"""Which weights of a kernel share a value (Han et al. 2016, arXiv:1510.00149, section 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lesiontk.system.frameworks import import_clustering, import_keras


def cluster_weights(kernel: NDArray[np.float32], clusters: int) -> NDArray[np.int32]:
    """Return the number of each weight's cluster, 0 to `clusters` - 1; zeros are one of their own.

    Centroids begin as tensorflow-model-optimization's k-means++ draws them and are then moved by
    scikit-learn's k-means.
    """
    from sklearn.cluster import KMeans

    kept = kernel != 0
    values = kernel[kept].reshape(-1, 1)
    sparse = not kept.all()
    wanted = min(clusters - sparse, len(np.unique(values)))
    ties = np.zeros(kernel.shape, np.int32)
    if wanted > 1:
        start = _draw_centroids(values, wanted)
        found = KMeans(wanted, init=start, n_init=1, max_iter=50).fit(values)
        ties[kept] = found.labels_ + sparse
    elif wanted == 1:
        ties[kept] = int(sparse)
    return ties


def _draw_centroids(values: NDArray[np.float32], clusters: int) -> NDArray[np.float32]:
    tools, keras = import_clustering(), import_keras()
    dense = keras.layers.Dense(1, use_bias=False)
    dense.build((None, len(values)))
    dense.set_weights([values])
    wrapper = tools.cluster_weights(dense, clusters, tools.CentroidInitialization.KMEANS_PLUS_PLUS)
    wrapper.build((None, len(values)))
    return np.sort(wrapper.cluster_centroids["kernel"].numpy()).reshape(-1, 1)
