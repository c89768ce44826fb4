from .embeddings import Embeddings as Embeddings
from .run import embed as embed
