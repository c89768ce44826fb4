from boresight.embeddings.embeddings import Embeddings as Embeddings
from boresight.embeddings.run import embed as embed
