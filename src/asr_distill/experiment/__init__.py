"""What is compared, how big, and where: the records of config/, loaded, cross-checked and resolved into runs."""

from asr_distill.experiment.base import Condition, Record, nearest
from asr_distill.experiment.corpora import (
    Corpus,
    Features,
    LibriLightPart,
    LibriSpeechPart,
    ManifestPart,
    SyntheticPart,
)
from asr_distill.experiment.language_models import (
    BertSize,
    BertTraining,
    LanguageModelSearch,
    MaskKind,
    PretrainedBert,
)
from asr_distill.experiment.loading import load_experiment, read_yaml, write_if_changed
from asr_distill.experiment.models import CTCSize, DecoderSize, EncoderSize, ModelSize, PredictorSize
from asr_distill.experiment.resolved import (
    CorpusRecord,
    DecodingRecord,
    LanguageModelsRecord,
    RunRecord,
    StudyRecord,
    TokenizerRecord,
)
from asr_distill.experiment.runs import AnyRun, CTCRun, Run
from asr_distill.experiment.scale import Augmentation, Decoding, Phase, PseudoLabels, Scale, Scoring
from asr_distill.experiment.study import (
    Claim,
    Comparison,
    Config,
    LatticeFigure,
    Relation,
    Row,
    Study,
    Table,
    printed_row,
    systems,
)

__all__ = [
    "AnyRun",
    "Augmentation",
    "BertSize",
    "BertTraining",
    "CTCRun",
    "CTCSize",
    "Claim",
    "Comparison",
    "Condition",
    "Config",
    "Corpus",
    "CorpusRecord",
    "DecoderSize",
    "Decoding",
    "DecodingRecord",
    "EncoderSize",
    "Features",
    "LanguageModelSearch",
    "LanguageModelsRecord",
    "LatticeFigure",
    "LibriLightPart",
    "LibriSpeechPart",
    "ManifestPart",
    "MaskKind",
    "ModelSize",
    "Phase",
    "PredictorSize",
    "PretrainedBert",
    "PseudoLabels",
    "Record",
    "Relation",
    "Row",
    "Run",
    "RunRecord",
    "Scale",
    "Scoring",
    "Study",
    "StudyRecord",
    "SyntheticPart",
    "Table",
    "TokenizerRecord",
    "load_experiment",
    "nearest",
    "printed_row",
    "read_yaml",
    "systems",
    "write_if_changed",
]
