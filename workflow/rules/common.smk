# The checked configuration, and the input functions that follow its references.
import sys
from pathlib import Path

from asr_distill.cluster import (
    check_site,
    gpus_at_hand,
    job_errors,
    job_logs,
    keep_status_command,
)
from asr_distill.dry_run import CostTeller
from asr_distill.experiment import (
    heard_sets,
    load_experiment,
    needed_runs,
    scored_parts,
    timed_runs,
)
from asr_distill.locks import lock_workflow
from asr_distill.text.text_corpus import found_files

try:
    experiment = load_experiment(config, root=Path(workflow.basedir))
    if workflow.is_main_process:  # its jobs find the records
        if not workflow.output_settings.dryrun:
            folder_lock, told = lock_workflow(Path(".snakemake"))
            if told:
                print(f"note: {told}", file=sys.stderr)
        experiment.write()
except (ValueError, OSError) as error:  # a user's mistake; a full or read-only disk
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)

# One GPU for each job that computes, and never two jobs on one card; without GPUs the cores alone set the limit. How
# many there are at a time, a profile's `resources: gpu` or the command line says; else this machine's are counted.
workflow.global_resources.setdefault("gpu", gpus_at_hand())
GPUS = workflow.global_resources["gpu"].value
SCALE = experiment.config.scale
WORK = f"{experiment.config.work}/{SCALE}"
RESULTS = f"{experiment.config.results}/{SCALE}"
BENCHMARKS = f"{experiment.config.results}/benchmarks"
CORPUS = f"{WORK}/corpus"
TOKENIZERS = list(experiment.scale.tokenizers)
TOKENIZER = f"{WORK}/tokenizer.model"
# Tokens of CTC recognisers and of language models: the last kind, which is the only one where there is no other.
CTC_TOKENIZER = f"{WORK}/{TOKENIZERS[-1]}.model"
PARTS = list(experiment.scale.corpus.parts)
SETS = experiment.scale.corpus.sets  # of parts that only runs which ask for them use
WITHOUT_SET = list(experiment.scale.corpus.restricted().parts)
SCORED = [*experiment.scale.parts("dev"), *experiment.scale.parts("test")]
LABELLED = experiment.scale.parts("labelled")
TRAINING = [
    *experiment.scale.parts("labelled", sets=SETS),
    *experiment.scale.parts("unlabelled", sets=SETS),
]
SHARDED = experiment.scale.corpus.sharded
# Transducers that others wait for: their teachers, and what they start from.
TEACHERS = sorted(
    {
        needed
        for study in experiment.studies.values()
        for run in study.runs.values()
        for needed in needed_runs(run)
        if study.runs[needed].recogniser == "transducer"
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
PRETRAINING = sorted(
    {
        name
        for study in experiment.studies.values()
        for name in study.runs.keys() - study.recognisers.keys()
    }
)
STREAMING = sorted(
    {
        name
        for study in experiment.studies.values()
        for name in timed_runs(study, experiment.scale)
    }
)
WITH_DECODER = [
    name
    for study in experiment.studies.values()
    for name, run in study.runs.items()
    if name in CTC_RUNS and run.decoder != "none"
]
TESTED = experiment.scale.parts("test")
# The core of every study, everything, or the studies' single tables, by name: what can be asked for.
SELECTIONS = sorted(
    {name for study in experiment.studies.values() for name in study.selections()}
)

# A dry run ends with what the jobs would cost.
if workflow.output_settings.dryrun:
    published = Path(workflow.basedir) / "results/published" / SCALE
    logger.addHandler(CostTeller(workflow, work=Path(WORK), published=published))


# What a cluster lacks is said before the first job is sent there.
onstart:
    try:
        check_site(workflow)
        if workflow.executor_plugin.name == "slurm":
            keep_status_command()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


EARLIER_LOGS = job_logs()


# What failed jobs said on their nodes.
onerror:
    print(*job_errors(EARLIER_LOGS), sep="\n", file=sys.stderr)


def one_of(names):
    """Regular expression for one of the names; for none of them, one that matches nothing."""
    return "|".join(names) or "(?!)"


wildcard_constraints:
    study=one_of(experiment.studies),
    selection=one_of(SELECTIONS),
    part=one_of(PARTS),
    set=one_of(SETS),
    sets=rf"({one_of(SETS)})(\+({one_of(SETS)}))*",
    seed=r"\d+",
    mask="token|word",
    tokens=one_of(TOKENIZERS),


def growing(amount):
    """What a job asks for: so much, and as much again each time it is retried."""

    def asked(wildcards, attempt):
        return amount * attempt

    return asked


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


def corpus_record(wildcards):
    """What decides a part: parts of sets have a record of their own, so that no other part depends on them."""
    part = experiment.scale.corpus.parts[wildcards.part]
    return f"{WORK}/{'corpus' if part.part_set is None else 'sets'}.yaml"


def synthetic_folder(wildcards):
    """Where a part lies that is synthesised: each set of parts is synthesised on its own."""
    part = experiment.scale.corpus.parts[wildcards.part]
    return (
        f"{WORK}/synthetic"
        if part.part_set is None
        else f"{WORK}/synthetic_{part.part_set}"
    )


def synthetic_corpus(wildcards):
    """The synthesised corpus, for the parts that come from it."""
    return synthetic_folder(wildcards) if wildcards.part in SYNTHETIC else []


def spoken_texts(wildcards):
    """Texts that matter to a set of synthesised parts: its own, and those of parts before it."""
    parts = [experiment.scale.corpus.parts[name] for name in SYNTHETIC]
    last = max(
        place for place, part in enumerate(parts) if part.part_set == wildcards.set
    )
    return [part.text for part in parts[: last + 1] if part.text is not None]


def text_files(texts):
    """The files of texts that are there; where one is not, its job says what to do."""
    data = Path(experiment.config.data)
    return [str(path) for text in texts for path in found_files(text, data=data)]


def spoken_text_files(wildcards):
    return text_files(spoken_texts(wildcards))


def language_model_text_files(wildcards):
    text = experiment.scale.language_models.text
    return [] if text.source == "grammar" else text_files([text])


def scored_elsewhere(wildcards):
    """What no text may hold that is spoken: transcripts of dev and test parts that are not synthesised."""
    scored = [
        *experiment.scale.parts("dev", sets=SETS),
        *experiment.scale.parts("test", sets=SETS),
    ]
    parts = [name for name in scored if name not in SYNTHETIC]
    return prepared("references.jsonl", parts) if spoken_texts(wildcards) else []


def synthesis_options(wildcards):
    scored = [f"--scored={path}" for path in scored_elsewhere(wildcards)]
    return ["--set", wildcards.set, *scored]


def prepared(name, parts=WITHOUT_SET):
    """One file of each prepared part."""
    return expand(f"{CORPUS}/{{part}}/{name}", part=parts)


def statistics_with_sets(wildcards):
    return prepared("statistics.json", parts_with(wildcards.sets.split("+")))


def references_with_sets(wildcards):
    return prepared("references.jsonl", parts_with(wildcards.sets.split("+")))


def quarantine_with_sets(wildcards):
    return prepared("quarantine.csv", parts_with(wildcards.sets.split("+")))


def parts_with(sets):
    """The parts without a set and those of some sets."""
    return list(experiment.scale.corpus.restricted(sets).parts)


def set_options(wildcards):
    return [word for name in wildcards.sets.split("+") for word in ("--set", name)]


def with_sets(name, sets):
    """A file about the parts without a set, and about those of some sets, if there are any."""
    return f"{WORK}/{name}{''.join(f'+{part_set}' for part_set in sets)}.csv"


def run_overview(wildcards):
    """The parts that a run may use, checked: no speaker is in two uses."""
    heard = heard_sets(run_record(wildcards).run)
    return with_sets("overview", [name for name in SETS if name in heard])


def report_sets(wildcards):
    """The sets of parts that the runs of a report use."""
    return experiment.record(wildcards.study, wildcards.selection).scale.corpus.sets


def report_overview(wildcards):
    return with_sets("overview", report_sets(wildcards))


def report_quarantine(wildcards):
    return with_sets("quarantine", report_sets(wildcards))


def report_records(wildcards):
    """What decides the parts that a report is about, their tokens and their transcripts."""
    sets = ["sets"] if report_sets(wildcards) else []
    return expand(
        f"{WORK}/{{name}}.yaml", name=["corpus", *sets, *TOKENIZERS, "decoding"]
    )


def teacher_model(wildcards):
    """The teacher that a run needs while it trains: for soft and mixed targets."""
    run = run_record(wildcards).run
    distils = run.recogniser == "transducer" and run.transducer_weight < 1
    return [teacher_file(wildcards, "model.safetensors")] if distils else []


def run_tokenizer(wildcards):
    """The tokens that a run learns; pre-training of an encoder has none."""
    kinds = {"best_rq": [], "ctc": [CTC_TOKENIZER], "transducer": [TOKENIZER]}
    return kinds[run_record(wildcards).run.recogniser]


def tokenizer_option(wildcards, input):
    return ["--tokenizer", *input.tokenizer] if input.tokenizer else []


def initial_encoder(wildcards):
    """What a run's encoder starts from, if not from random weights."""
    run = run_record(wildcards).run
    if run.recogniser != "transducer" or run.initial is None:
        return []
    transcribes = run.initial in experiment.studies[wildcards.study].recognisers
    name = "model.safetensors" if transcribes else "encoder.safetensors"
    return [other_run_file(wildcards, run.initial, name)]


def initial_option(wildcards, input):
    return ["--initial", *input.initial] if input.initial else []


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
    parts = record.unlabelled if record.run.teacher is not None else ()
    return [teacher_file(wildcards, f"pseudo_labels/{part}.jsonl") for part in parts]


def pseudo_label_blocks(wildcards):
    """The transcripts of a part in shards, by the jobs that share the work, in the order of its utterances."""
    jobs = experiment.scale.pseudo_labels.jobs
    folder = f"{RUN}/pseudo_labels/{{part}}".format(**wildcards)
    return [f"{folder}/{block}-of-{jobs}.jsonl" for block in range(jobs)]


def teacher_file(wildcards, name):
    return other_run_file(wildcards, run_record(wildcards).run.teacher, name)


def other_run_file(wildcards, run, name):
    """A file of another run with the same seed."""
    return f"{WORK}/{wildcards.study}/{run}/seed{wildcards.seed}/{name}"


def teacher_option(wildcards, input):
    return ["--teacher", *input.teacher] if input.teacher else []


def pseudo_label_options(wildcards, input):
    return [word for path in input.pseudo_labels for word in ("--pseudo-labels", path)]


def run_parts(wildcards):
    """The dev and test parts that a run transcribes."""
    return scored_parts(run_record(wildcards).run, experiment.scale)


def run_cuts(wildcards):
    return prepared("cuts.jsonl.gz", run_parts(wildcards))


def run_features(wildcards):
    return prepared("features.lca", run_parts(wildcards))


def report_references(wildcards):
    """Transcripts of every part that a report counts errors on."""
    record = experiment.record(wildcards.study, wildcards.selection)
    return prepared("references.jsonl", record.scored_parts)


def part_options(wildcards):
    return [word for part in run_parts(wildcards) for word in ("--part", part)]


def dev_options(wildcards):
    return [word for part in experiment.scale.parts("dev") for word in ("--dev", part)]


def test_options(wildcards):
    return [
        word for part in experiment.scale.parts("test") for word in ("--test", part)
    ]


def training_parts(wildcards):
    """The prepared parts that a run reads."""
    record = run_record(wildcards)
    read = [*record.heard, *record.dev, *record.normalised_by]
    return prepared("statistics.json", dict.fromkeys(read))


def study_runs(wildcards, name):
    """One file of every run and seed that a report is about."""
    return files_of(selected(wildcards).runs, wildcards, name)


def recognisers(wildcards, name):
    """One file of every run and seed that transcribes speech for a report."""
    return files_of(selected(wildcards).recognisers, wildcards, name)


def files_of(runs, wildcards, name):
    folder = f"{WORK}/{wildcards.study}/{{run}}/seed{{seed}}/{name}"
    return expand(folder, run=runs, seed=experiment.config.seeds)


def hypotheses(wildcards):
    return recognisers(wildcards, "hypotheses.jsonl")


def summaries(wildcards):
    return study_runs(wildcards, "training.json") + study_runs(wildcards, "curve.csv")


def timings(wildcards):
    return recognisers(wildcards, "decoding.json")


def benchmarks(wildcards):
    return study_runs(wildcards, "train.tsv") + recognisers(wildcards, "decode.tsv")


def costs(wildcards):
    """What Snakemake measured of the trainings whose memory a table shows."""
    tables = [table for table in selected(wildcards).tables.values() if table.cost]
    runs = {row.run for table in tables for row in table.rows if row.run is not None}
    return files_of(sorted(runs), wildcards, "train.tsv")


def alignments(wildcards):
    """Where words end, as the study's own run aligns them, if a report shows emission latency."""
    study = selected(wildcards)
    aligned_by = [study.aligned_by] if study.measures_latency else []
    return files_of(aligned_by, wildcards, "alignment.jsonl")


def emissions(wildcards):
    """When the streaming runs of a report wrote their words."""
    record = experiment.record(wildcards.study, wildcards.selection)
    return files_of(record.timed_runs, wildcards, "emissions.jsonl")


def emission_latency(wildcards):
    """How late a report's streaming runs write their words, if it shows that."""
    shown = selected(wildcards).measures_latency
    return [f"{STUDY}/latency.csv".format(**wildcards)] if shown else []


def latency_option(wildcards, input):
    return ["--latency", *input.latency] if input.latency else []


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


def heard(wildcards):
    """Transcripts of the first seed that stand beside the sound of utterances."""
    record = experiment.record(wildcards.study, wildcards.selection)
    names = record.study.listening.systems.values()
    files = {record.systems()[name] for name in names}
    files = {(run, file.partition("/")[0]) for run, file in files}  # or their folder
    return [first_seed_file(wildcards, run, file) for run, file in sorted(files)]


def listening(wildcards):
    """What one can listen to in a report, if anything."""
    record = experiment.record(wildcards.study, wildcards.selection)
    return (
        [f"{REPORT}/listening.json".format(**wildcards)]
        if record.study.listening
        else []
    )


def listening_option(wildcards, input):
    return ["--listening", *input.listening] if input.listening else []


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
