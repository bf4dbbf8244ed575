"""Weight clustering: the weights of a kernel that share a value (Han et al. 2016, arXiv:1510.00149,
section 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cluster_weights(kernel: NDArray[np.float32], clusters: int) -> NDArray[np.int32]:
    """Return the cluster index of each weight, 0 to `clusters` - 1; zeros form their own cluster.

    The clusters are those of k-means, initialized by k-means++.
    """
    from sklearn.cluster import KMeans

    kept = kernel != 0
    values = kernel[kept].reshape(-1, 1)
    sparse = not kept.all()
    wanted = min(clusters - sparse, len(np.unique(values)))
    ties = np.zeros(kernel.shape, np.int32)
    if wanted > 1:
        found = KMeans(wanted, n_init=1, max_iter=50, random_state=0).fit(values)
        ties[kept] = found.labels_ + sparse
    elif wanted == 1:
        ties[kept] = int(sparse)
    return ties
