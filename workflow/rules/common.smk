# The checked configuration, and the input functions that follow its references.
import sys
from pathlib import Path

from asr_distill.devices import num_gpus
from asr_distill.experiment import load_experiment

try:
    experiment = load_experiment(config, root=Path(workflow.basedir))
    experiment.write()
except (ValueError, OSError) as error:  # a user's mistake; a full or read-only disk
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)

# One GPU for each job that computes, and never two jobs on one card; without GPUs the cores alone set the limit.
GPUS = num_gpus()
workflow.global_resources.setdefault("gpu", GPUS)
SCALE = experiment.config.scale
WORK = f"{experiment.config.work}/{SCALE}"
RESULTS = f"{experiment.config.results}/{SCALE}"
BENCHMARKS = f"{experiment.config.results}/benchmarks"
CORPUS = f"{WORK}/corpus"
TOKENIZER = f"{WORK}/tokenizer.model"
PARTS = list(experiment.scale.corpus.parts)
SCORED = [*experiment.scale.parts("dev"), *experiment.scale.parts("test")]
LABELLED = experiment.scale.parts("labelled")
TRAINING = [*LABELLED, *experiment.scale.parts("unlabelled")]
TEACHERS = sorted(
    {
        run.teacher
        for study in experiment.studies.values()
        for run in study.runs.values()
        if run.teacher
    }
)
AS_LARGE_AS_TEACHER = sorted(
    name
    for study in experiment.studies.values()
    for name, run in study.runs.items()
    if name not in TEACHERS
    and run.teacher
    and run.model == study.runs[run.teacher].model
)
SYNTHETIC = [
    name
    for name, part in experiment.scale.corpus.parts.items()
    if part.source == "synthetic"
]
RUN = f"{WORK}/{{study}}/{{run}}/seed{{seed}}"
REPORT = f"{WORK}/{{study}}/report/{{selection}}"
STUDY = f"{RESULTS}/{{study}}/{{selection}}"
LANGUAGE_MODELS = f"{WORK}/language_models"
BERT = f"{LANGUAGE_MODELS}/bert"
NGRAM = f"{LANGUAGE_MODELS}/ngram.arpa"
CTC_RUNS = sorted(
    {
        name
        for study in experiment.studies.values()
        for name, run in study.runs.items()
        if run.recogniser == "ctc"
    }
)
WITH_DECODER = [
    name
    for study in experiment.studies.values()
    for name, run in study.runs.items()
    if name in CTC_RUNS and run.decoder != "none"
]
# The core of every study, everything, or the studies' single tables, by name: what can be asked for.
SELECTIONS = sorted(
    {name for study in experiment.studies.values() for name in study.selections()}
)


def one_of(names):
    """Regular expression for one of the names; for none of them, one that matches nothing."""
    return "|".join(names) or "(?!)"


wildcard_constraints:
    study=one_of(experiment.studies),
    selection=one_of(SELECTIONS),
    part=one_of(PARTS),
    seed=r"\d+",
    mask="token|word",


def work_folder(wildcards):
    return WORK


def corpus_folder(wildcards):
    return CORPUS


def part_folder(wildcards):
    return f"{CORPUS}/{wildcards.part}"


def study_folder(wildcards):
    return f"{WORK}/{wildcards.study}"


def run_folder(wildcards):
    return f"{WORK}/{wildcards.study}/{wildcards.run}/seed{wildcards.seed}"


def results_folder(wildcards):
    return f"{RESULTS}/{wildcards.study}/{wildcards.selection}"


def benchmarks_folder(wildcards):
    return BENCHMARKS


def run_record(wildcards):
    """Resolved record of the run that a job is about."""
    return experiment.run(wildcards.study, wildcards.run, seed=int(wildcards.seed))


def synthetic_corpus(wildcards):
    """The synthesised corpus, for the parts that come from it."""
    return f"{WORK}/synthetic" if wildcards.part in SYNTHETIC else []


def prepared(name, parts=PARTS):
    """One file of each prepared part."""
    return expand(f"{CORPUS}/{{part}}/{name}", part=parts)


def teacher_model(wildcards):
    """The teacher that a run needs while it trains: for soft and mixed targets."""
    run = run_record(wildcards).run
    distils = run.recogniser == "transducer" and run.transducer_weight < 1
    return [teacher_file(wildcards, "model.safetensors")] if distils else []


def soft_labels(wildcards):
    """BERT's distributions that a run learns from."""
    run = run_record(wildcards).run
    names = run.soft_labels if run.recogniser == "ctc" else ()
    return expand(f"{LANGUAGE_MODELS}/soft_labels/{{name}}.safetensors", name=names)


def soft_label_option(wildcards, input):
    return ["--soft-labels", *input.soft_labels] if input.soft_labels else []


def soft_label_top_k(wildcards):
    return experiment.scale.language_models.soft_label_top_k


def hidden_states_option(wildcards):
    return ["--hidden-states"] if wildcards.hidden_states else []


def bert_folder(wildcards):
    return BERT


def attention_decoder(wildcards):
    """The attention decoder of a CTC run that has one."""
    kept = run_record(wildcards).run.decoder_transcribes
    return [f"{RUN}/decoder.safetensors".format(**wildcards)] if kept else []


def decoder_option(wildcards, input):
    return ["--decoder", *input.decoder] if input.decoder else []


def selected(wildcards):
    """The part of a study that a report is about."""
    return experiment.record(wildcards.study, wildcards.selection).study


def language_models(wildcards):
    """What the table of the language models is made of, for reports about runs that use them."""
    runs = [run for run in selected(wildcards).runs.values() if run.recogniser == "ctc"]
    files = [f"{LANGUAGE_MODELS}/text.json", NGRAM] if runs else []
    asks_bert = any(run.from_bert is not None for run in runs)
    return [*files, f"{BERT}/bert.json"] if asks_bert else files


def language_models_option(wildcards, input):
    return ["--language-models", LANGUAGE_MODELS] if input.language_models else []


def searches(wildcards):
    """What the CTC runs of a report were decoded into by other searches than the greedy one."""
    runs = [name for name in selected(wildcards).runs if name in CTC_RUNS]
    folder = f"{WORK}/{wildcards.study}/{{run}}/seed{{seed}}/searches"
    return expand(folder, run=runs, seed=experiment.config.seeds)


def pseudo_labels(wildcards):
    """The teacher's transcripts of the unlabelled parts that a run trains on."""
    record = run_record(wildcards)
    return [
        teacher_file(wildcards, f"pseudo_labels/{part}.jsonl")
        for part in record.unlabelled
    ]


def teacher_file(wildcards, name):
    teacher = run_record(wildcards).run.teacher
    return f"{WORK}/{wildcards.study}/{teacher}/seed{wildcards.seed}/{name}"


def teacher_option(wildcards, input):
    return ["--teacher", *input.teacher] if input.teacher else []


def pseudo_label_options(wildcards, input):
    return [word for path in input.pseudo_labels for word in ("--pseudo-labels", path)]


def part_options(wildcards):
    return [word for part in SCORED for word in ("--part", part)]


def dev_options(wildcards):
    return [word for part in experiment.scale.parts("dev") for word in ("--dev", part)]


def test_options(wildcards):
    return [
        word for part in experiment.scale.parts("test") for word in ("--test", part)
    ]


def training_parts(wildcards):
    """The prepared parts that a run reads."""
    record = run_record(wildcards)
    return prepared(
        "statistics.json", [*record.labelled, *record.unlabelled, *record.dev]
    )


def study_runs(wildcards, name):
    """One file of every run and seed that a report is about."""
    runs = selected(wildcards).runs
    folder = f"{WORK}/{wildcards.study}/{{run}}/seed{{seed}}/{name}"
    return expand(folder, run=runs, seed=experiment.config.seeds)


def hypotheses(wildcards):
    return study_runs(wildcards, "hypotheses.jsonl")


def summaries(wildcards):
    return study_runs(wildcards, "training.json") + study_runs(wildcards, "curve.csv")


def timings(wildcards):
    return study_runs(wildcards, "decoding.json")


def benchmarks(wildcards):
    return study_runs(wildcards, "train.tsv") + study_runs(wildcards, "decode.tsv")


def lattice_models(wildcards):
    """The models of the lattice figure, of the first seed; none where it has no such figure."""
    figure = selected(wildcards).lattice
    runs = figure.runs if figure is not None else ()
    return [first_seed_file(wildcards, run, "model.safetensors") for run in runs]


def illustrations(wildcards):
    """What the lattice figure shows, if there is one."""
    figure = selected(wildcards).lattice
    return [] if figure is None else [f"{REPORT}/illustrations.npz".format(**wildcards)]


def illustrations_option(wildcards, input):
    return ["--illustrations", *input.illustrations] if input.illustrations else []


def sampled(wildcards):
    """References and, of the first seed, transcripts in the table of samples, if there is one."""
    record = experiment.record(wildcards.study, wildcards.selection)
    samples = record.study.samples
    if samples is None:
        return []
    chosen = {
        record.systems()[name]
        for name in (*samples.systems.values(), *samples.compared)
    }
    files = {(run, file.partition("/")[0]) for run, file in chosen}  # or their folder
    return [
        *prepared("references.jsonl", [record.scale.conditions[samples.condition]]),
        *(first_seed_file(wildcards, run, file) for run, file in sorted(files)),
    ]


def decoder_models(wildcards):
    """The models of the figure of BERT's knowledge, of the first seed, if there is one."""
    figure = selected(wildcards).knowledge
    return [
        first_seed_file(wildcards, run, f"{name}.safetensors")
        for run in (figure.runs if figure is not None else ())
        for name in ("model", "decoder")
    ]


def first_seed_file(wildcards, run, name):
    return f"{WORK}/{wildcards.study}/{run}/seed{experiment.config.seeds[0]}/{name}"


def knowledge_of_samples(wildcards):
    """Which samples are shown, and BERT's own words for them, if there are any."""
    return knowledge_file(wildcards, selected(wildcards).samples)


def knowledge_of_figure(wildcards):
    """What the figure of BERT's knowledge shows, if there is one."""
    return knowledge_file(wildcards, selected(wildcards).knowledge)


def knowledge_file(wildcards, wanted):
    return [] if wanted is None else [f"{REPORT}/knowledge.npz".format(**wildcards)]


def knowledge_option(wildcards, input):
    return ["--knowledge", *input.knowledge] if input.knowledge else []


def samples_options(wildcards, input):
    chosen = knowledge_option(wildcards, input)
    return [*chosen, "--corpus", CORPUS] if chosen else []


def model_options(wildcards, input):
    return [word for path in input.models for word in ("--model", path)]


def record_options(wildcards, input):
    return [word for path in input.records for word in ("--record", path)]


def results(selection):
    """What a report of all studies is made of, or of those that have a table of this name."""
    files = [
        "claims.md",
        "scores.csv",
        "provenance.json",
        "quarantine.csv",
        "report.html",
    ]
    studies = [
        name
        for name, study in experiment.studies.items()
        if selection in study.selections()
    ]
    return expand(
        f"{RESULTS}/{{study}}/{selection}/{{file}}", study=studies, file=files
    )
