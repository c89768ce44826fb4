from boresight.sae.autoencoder import SparseAutoencoder as SparseAutoencoder
from boresight.sae.codes import SparseCodes as SparseCodes
from boresight.sae.measures import SaeMeasures as SaeMeasures
from boresight.sae.measures import measure_sae as measure_sae
from boresight.sae.measures import retrieval_kept as retrieval_kept
from boresight.sae.measures import stability as stability
