from boresight.embeddings.embeddings import Embeddings as Embeddings
