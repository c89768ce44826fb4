from boresight.editing.config import EditorConfig as EditorConfig
from boresight.editing.editor import CaptionEditor as CaptionEditor
from boresight.editing.explanation import Explanation as Explanation
from boresight.editing.explanation import LatentEffect as LatentEffect
from boresight.editing.scorer import PlainScorer as PlainScorer
from boresight.editing.scorer import PreparedImages as PreparedImages
from boresight.editing.scorer import PreparedTexts as PreparedTexts
from boresight.editing.scorer import Scorer as Scorer
