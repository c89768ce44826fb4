from .captions import CaptionResult as CaptionResult
from .captions import CaptionResults as CaptionResults
from .index import SearchIndex as SearchIndex
from .query import Query as Query
from .reranking import rerank as rerank
from .results import Reasons as Reasons
from .results import Result as Result
from .results import Results as Results
