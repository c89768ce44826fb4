from .config import EditorConfig as EditorConfig
from .editor import CaptionEditor as CaptionEditor
from .explanation import Explanation as Explanation
from .explanation import LatentEffect as LatentEffect
from .scorer import PlainScorer as PlainScorer
from .scorer import PreparedImages as PreparedImages
from .scorer import PreparedTexts as PreparedTexts
from .scorer import Scorer as Scorer
