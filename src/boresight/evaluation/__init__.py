from boresight.evaluation.retrieval import RetrievalResult as RetrievalResult
from boresight.evaluation.retrieval import chance as chance
from boresight.evaluation.retrieval import evaluate_retrieval as evaluate_retrieval
